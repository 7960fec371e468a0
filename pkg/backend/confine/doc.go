// SPDX-License-Identifier: Apache-2.0

// Package confine takes away from a back-end process what it does not need, once
// it has opened what it does: the file system, most capabilities, and the
// system calls that reach other processes, the network or more of the kernel.
//
// What stays is descriptors. The file service works on those it is sent, with
// the capabilities that package vfs names. The package changes the whole
// process, all threads, for good; it cannot be used in a shim.
package confine
