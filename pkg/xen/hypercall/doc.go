// SPDX-License-Identifier: Apache-2.0

// Package hypercall is the door to /dev/xen/privcmd and /dev/xen/hypercall: it
// asks Xen to do one thing at a time, by typed methods.
//
// It knows the interface's versions and nothing of how a domain is built from
// these steps; pkg/xen does that. Buffers that Xen reads or writes lie in memory
// of /dev/xen/hypercall, which the kernel neither moves nor takes away.
package hypercall
