// SPDX-License-Identifier: Apache-2.0

// Package vfstest is the guest's half of FUSE for tests: it builds the bytes of
// requests, well-formed or not, and takes replies apart. It knows no transport
// and keeps no cache.
package vfstest
