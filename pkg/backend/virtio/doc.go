// SPDX-License-Identifier: Apache-2.0

// Package virtio is the contract between the back-end process's event loop and
// the devices it runs. It holds no device and no transport.
package virtio
