// SPDX-License-Identifier: Apache-2.0

// Package proc is the back-end process of one domain: it joins the device page,
// the devices, the console and the conversation with the shim.
//
// It knows memory as byte slices and events as an interface; whoever wires the
// process maps the one and implements the other. It imports nothing of the
// hypervisor's and opens no path.
package proc
