// SPDX-License-Identifier: Apache-2.0

// Package virtq is the device side of a virtio split virtqueue whose rings and
// buffers lie in a NoXS pool (docs/noxs.md 3).
//
// Everything in the pool may change at any time and is taken for hostile: each
// field is read once and checked before use, and buffers never reach outside
// the device's section. What the buffers hold is not looked at here; their
// slices alias guest memory, so a user copies before it checks.
package virtq
