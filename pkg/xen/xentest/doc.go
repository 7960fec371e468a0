// SPDX-License-Identifier: Apache-2.0

// Package xentest is the toolstack's twin and its conformance suite.
//
// Machine is a hypervisor in memory: it keeps domains, frames, page tables,
// event channels and mappings, and refuses what Xen refuses, such as to pin a
// page table that somebody maps writable. It can be told to fail at any call.
// It runs one guest, GuestKernel, by acting as that program would.
//
// Conformance runs the same cases on a Machine and on real Xen, so that the twin
// cannot drift. Built with go test -c, it is the test binary for a dom0; there
// RealTarget needs the environment variables that it documents.
package xentest
