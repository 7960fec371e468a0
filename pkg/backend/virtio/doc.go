// SPDX-License-Identifier: Apache-2.0

// Package virtio is the contract between the back-end process's event loop and
// the devices it runs, and what the devices have in common: Workers, which carry
// out the requests of those that answer each by itself, and Guard against guest
// memory that goes away. It holds no device and no transport.
package virtio
