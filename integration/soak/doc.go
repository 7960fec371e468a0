// SPDX-License-Identifier: Apache-2.0

// Package soak does the same thing many times and looks for what grows: execs in
// one container, then whole containers, then containers that are paused, updated
// and killed at work. It runs in a lab's dom0.
//
// Numbers are compared after they have settled: a process that has just ended, a
// page that waits for scrubbing or a file in a cache is no leak. Where a number
// cannot be exact, its tolerance stands beside it.
package soak
