// SPDX-License-Identifier: Apache-2.0

// Package virtqtest is the guest's half of a virtqueue for tests: it lays out
// rings in a pool, posts buffers by copying them through the device's section
// as the guest's DMA operations do, and takes back what the device used. It is
// no driver for real use: it keeps to the rules unless told otherwise, and
// panics when the device under test breaks them.
package virtqtest
