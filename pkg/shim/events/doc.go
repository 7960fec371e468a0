// SPDX-License-Identifier: Apache-2.0

// Package events sends task events to containerd: one queue, one sender, so that
// they arrive in the order in which they happened. Publishing never waits:
// containerd may be down or slow.
//
// It does not know which events there are or what order is right.
package events
