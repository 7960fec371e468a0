// SPDX-License-Identifier: Apache-2.0

// Package xkernel holds what makes Debian's Xen into an X-Kernel: a Xen that
// offers PV guests a mode without a user mode, in which user and kernel share
// one page table and are told apart by the sign of the stack pointer.
//
// It holds the files and nothing else; package xenbuild of the integration
// module builds the hypervisor. The patches are GPL-2.0, as Xen is. SECURITY.md
// says of each changed line what a hostile guest could try with it.
package xkernel
