// SPDX-License-Identifier: Apache-2.0

package virtio

import "github.com/xcontainer/xcontainer/pkg/backend/virtq"

// Env is what a running device may call. Both functions may be called from any
// goroutine and never block.
type Env struct {
	// Notify sends the guest an event: look at the used rings. The device
	// calls it when NeedSignal of a queue says so.
	Notify func()
	// Fail reports that the device cannot go on, with an error that matches
	// virtq.ErrGuest when the guest broke the rules. The loop calls Stop
	// some time after; until then the device leaves its queues alone.
	Fail func(error)
}

// Device is a device model. The loop's calls never overlap: Start, any number
// of Kick, Stop, and again.
type Device interface {
	// Start runs the device on its queues, with the features that the driver
	// chose. queues has one element for each queue that the device page
	// offers, nil where the driver uses none. An error means that the driver
	// cannot have meant this; the loop then asks the guest for a reset and
	// does not call Stop. Kick follows at once, since buffers may wait.
	Start(queues []*virtq.Queue, features uint64, env Env) error
	// Kick says that the guest may have added buffers to any queue or used
	// up what it was given. It must not block.
	Kick()
	// Stop forgets every buffer, connection and handle of the guest. The
	// loop has called Stop of each queue before. When Stop returns, no
	// goroutine of the device touches guest memory.
	Stop()
}
