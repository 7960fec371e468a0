// SPDX-License-Identifier: Apache-2.0

// Package lab runs a real Xen host in QEMU: a Debian dom0 with containerd, runc
// and this project's programs, reachable by SSH on a local port.
//
// It is both the engine of the lab command and the fixture of the integration
// tests. A lab belongs to one checkout of the project and a name; its disk is a
// throw-away overlay, so every Up starts from the same machine. The emulated
// processor is QEMU's TCG unless the machine can run Xen under KVM.
//
// The package does not decide what is in the machine (see internal/inputs) and
// does not test anything.
package lab
