// SPDX-License-Identifier: Apache-2.0

package vfs_test

// racyStore stands for a guest that writes to a buffer while we read it, which
// the race detector must not take for a fault of ours.
//
//go:norace
func racyStore(b []byte, i int, v byte) { b[i] = v }
