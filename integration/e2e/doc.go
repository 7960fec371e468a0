// SPDX-License-Identifier: Apache-2.0

// Package e2e holds the end-to-end tests: what a user does with ctr, done on
// a machine that runs containerd and Xen, and compared with what runc does.
//
// The tests boot one lab for the whole run (package lab), or use a running
// one. Everything they do there, they do through commands in its dom0, so that
// they see what a user sees. Each test compares the machine before and after
// it: domains, processes, mounts, namespaces, sockets, event channels and
// containerd's objects must be what they were.
//
// The environment chooses what is tested:
//
//	RUNTIME=io.containerd.runc.v2  the runtime; ours if unset. The stories
//	                               hold for runc too, which is how the tests
//	                               themselves are tested
//	LAB_ATTACH=1                   use the lab that is up, and leave it up
//	LAB_XEN=4.20                   the Xen of the lab to boot
//	E2E_HOST=plain                 no lab: a private containerd on this
//	                               machine (with E2E_BIN, E2E_IMAGES)
//
// Tests whose name begins with TestSmoke are the shortest useful set.
//
// The package does not test single packages, and measures no times: see
// integration/cmd/bench.
package e2e
