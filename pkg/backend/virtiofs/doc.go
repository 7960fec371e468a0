// SPDX-License-Identifier: Apache-2.0

// Package virtiofs is the virtio file system device (virtio 1.2, 5.11; device
// id 26): it takes FUSE requests from a domain's queues, has package vfs carry
// them out, several at a time, and gives the replies back in whatever order they
// are done. It offers no DAX window and no notification queue, and knows nothing
// of files.
package virtiofs
