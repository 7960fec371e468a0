// SPDX-License-Identifier: Apache-2.0

// Package chaos lives containers' lives through containerd's Go client while it
// kills what they need: the shim, the back-end, the holder, the guest, the daemon.
// It runs in a lab's dom0.
//
// Where a blow falls is drawn from a seed. What has to hold whatever happens:
// every call of the client is answered within a bound, with an error or without;
// the container can be deleted afterwards; and then nothing is left.
package chaos
