// SPDX-License-Identifier: Apache-2.0

// Package orphans finds and removes what is left of containers whose shim died
// and whom nobody cleaned up after: domains, back-end and holder processes,
// mounts, cgroups, sockets and records.
//
// It acts on two kinds of proof only, both of which name a process by pid and
// start time: a record in a bundle, and a domain's handle (package record). A
// container whose shim lives is therefore never touched, whatever state it is in,
// nor anything that neither proof calls ours. What a shim's death leaves for a
// moment, until containerd runs `delete`, is not reported: an orphan is one that
// is still there some time later.
package orphans
