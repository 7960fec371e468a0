// SPDX-License-Identifier: Apache-2.0

// Package task is the long-lived part of the shim: containerd's task service
// (versions 2 and 3) on one container in one domain, its processes, their
// states, stdio and events.
//
// It knows nothing of Xen: Guest is all that it asks of a domain. It does not
// listen on sockets or parse the command line; that is pkg/shim.
package task
