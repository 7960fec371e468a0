// SPDX-License-Identifier: Apache-2.0

// Package pv lays out and fills the memory of a 64-bit PV domain: it reads a
// kernel and its Xen notes, plans where everything goes, and writes the pages.
//
// It makes no hypercall. A Plan follows from sizes alone; what is known only
// once the domain exists (its frames, its event channels) comes in with Values.
// The layout is the one that Linux expects of a PV domain builder:
//
//	pfn 0            ordinary memory, mapped, up to the kernel's load address
//	KernelStart      kernel segments
//	StartInfo        one page
//	Console          one page
//	Device           the device page of docs/noxs.md, then its pool
//	Tables           page tables of the initial mapping, the top level first
//	Stack            one page
//	                 ordinary memory, mapped, up to the next 4 MiB
//	MapEnd           end of the initial mapping
//	Initramfs        the initial file system
//	P2M              the list of the domain's frames, then its page tables
//	                 ordinary memory up to NrPages
package pv
