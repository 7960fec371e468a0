// SPDX-License-Identifier: Apache-2.0

// Package evtchn is the door to /dev/xen/evtchn: one descriptor that holds the
// near ends of any number of event channels, is told of their events, and tells
// the far ends.
//
// It gives events no meaning. The kernel masks a port when it reports its event
// and keeps it masked until Unmask, so a peer that sends without end costs no
// more than the reader is willing to take.
package evtchn
