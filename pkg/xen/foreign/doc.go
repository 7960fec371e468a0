// SPDX-License-Identifier: Apache-2.0

// Package foreign maps memory of another domain through an open
// /dev/xen/privcmd.
//
// It is all of the toolstack that a device back-end's process needs: the process
// is handed a descriptor that is restricted to its domain, maps the device page,
// the pool and the console with MapBackend, and closes the descriptor. It makes
// no hypercall and opens no device.
package foreign
