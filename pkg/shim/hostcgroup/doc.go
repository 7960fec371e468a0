// SPDX-License-Identifier: Apache-2.0

// Package hostcgroup is a container's cgroup on the host: version 1 or 2, as the
// host has it.
//
// What limits a container is the guest's kernel and the hypervisor. On the host
// there is only its holder, a process of a few megabytes, but tools look for a
// container's limits in the cgroup of its pid, and put their own processes there.
// So the cgroup exists, has the limits that config.json names, and follows
// updates. A limit that would harm the holder itself is raised to what it needs
// (MinMemory, MinPids), and one whose controller this host does not have is left
// out.
//
// The device back-end is not in it: its memory is the guest's page cache and
// buffers in another form and would count against a limit that was not meant
// for it. It stays with the shim, in the cgroup that the runtime's option
// ShimCgroup names, or in containerd's.
package hostcgroup
