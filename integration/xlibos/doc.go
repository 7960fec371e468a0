// SPDX-License-Identifier: Apache-2.0

// Package xlibos runs programs that try to tell X-LibOS from plain Linux, in
// containers on real Xen.
//
// torture has them: each looks at one thing that rewriting system calls, or
// entering the kernel by a call, may break, and passes on any Linux. They run with
// X-LibOS whole on the kernel for one processor and on that for more, and on the first
// also with it off, and those that are not about rewriting with its entry only. The
// kernel's log must have no warning afterwards, and /proc/xlibos must tell that sites
// were rewritten where they were to be.
//
// bench has the program that cmd/benchsyscalls measures with, and what its servers need.
package xlibos
