// SPDX-License-Identifier: Apache-2.0

// Package holder is the small host process that stands for a task: a domain has
// no process of its own in dom0, but containerd, CNI plug-ins and operators look
// at a task by its pid. The holder sits in the network namespace and in the cgroup
// that belong to the task, and waits.
//
// It does nothing else: it runs nothing, and it has no part in the domain. It
// ends when its shim does, and its shim learns when somebody killed it.
package holder
