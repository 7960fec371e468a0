// SPDX-License-Identifier: Apache-2.0

// Package virtioblk is the virtio block device (virtio 1.2, 5.2; device id 2):
// it reads and writes one file or block device of the host for a domain. It
// opens nothing: the descriptor was opened, looked at and locked by others.
//
// The guest says where on the disk, how much, and what to do. All of that is
// copied first, then checked against the capacity that the toolstack decided;
// only the data itself goes between guest memory and file without a copy.
package virtioblk
