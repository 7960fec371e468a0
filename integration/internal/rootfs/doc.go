// SPDX-License-Identifier: Apache-2.0

// Package rootfs assembles root file systems in memory from Debian packages and
// single files, and writes them out as a tar stream (an image layer), as a cpio
// archive (an initramfs) or as a directory (to make a disk image from).
//
// No maintainer script runs and no privilege is needed: owners and modes are
// those of the packages. What the scripts would have made, such as
// /etc/passwd, is added by the caller. The same input gives the same bytes.
package rootfs
