// SPDX-License-Identifier: Apache-2.0

// Package record keeps in a container's bundle what a shim has made on the host,
// so that `delete` can undo it when the shim has died.
//
// It names things; it destroys none but processes.
package record
