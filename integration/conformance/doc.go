// SPDX-License-Identifier: Apache-2.0

// Package conformance runs the toolstack's conformance suite (pkg/xen/xentest)
// in the dom0 of a lab: the cases that the hypervisor in memory passes, on real
// Xen, with the library OS's own kernels. And the agent's tests of limits, for
// which dom0 has the cgroups.
package conformance
