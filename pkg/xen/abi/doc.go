// SPDX-License-Identifier: Apache-2.0

// Package abi is a transcript of the parts of Xen's and Linux's interfaces that
// a PV toolstack needs: numbers, structure sizes, field offsets, and encoders
// that place fields at those offsets.
//
// It makes no system call and decides nothing. Names follow Xen's public headers
// (xen/include/public, release 4.17, domctl interface 0x15); a test compiles a C
// program against those headers and compares every number. All structures are
// those of a 64-bit x86 caller, little endian.
package abi
