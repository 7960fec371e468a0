// SPDX-License-Identifier: Apache-2.0

// Package inputs makes the files that a lab machine is built from: the Xen
// binary, the dom0 kernel with the modules that a dom0 needs, the containerd
// programs, the dom0 disk and its initramfs, and the test images.
//
// Each product is an entry of the cache, keyed by the names and versions of the
// packages and modules it is made from. Nothing here starts a machine.
package inputs
