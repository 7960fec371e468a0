// SPDX-License-Identifier: Apache-2.0

// Package noxs is the device page of docs/noxs.md: its layout, an encoder for
// the toolstack and an accessor for the back-end, which finds the fields the
// guest writes in memory that both sides see.
//
// It knows no hypervisor and no device model. The toolstack passes the encoded
// page on to the domain builder; the back-end is handed the mapping and the
// Layout, and believes only the Layout about what the toolstack decided, since
// the guest can overwrite every byte of the page.
package noxs
