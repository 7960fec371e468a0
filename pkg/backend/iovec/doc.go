// SPDX-License-Identifier: Apache-2.0

// Package iovec is what the back-ends share that move data between the buffers
// of a request and the host: work on lists of buffers, and counts of what was
// moved. It knows no queue and no device.
package iovec
