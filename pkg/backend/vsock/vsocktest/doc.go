// SPDX-License-Identifier: Apache-2.0

// Package vsocktest is the guest's end of virtio-vsock for tests, on the
// queues of package virtqtest. It behaves as Linux does where the host can
// tell: credit, half-close, a close that waits for the host's reset. It can
// also send any packet, right or wrong.
package vsocktest
