// SPDX-License-Identifier: Apache-2.0

// Package daemons runs one container's life with every release line of
// containerd that is supported, each a real daemon in the lab's dom0: Debian's
// own 1.6, and newer ones built from their modules. Each has the ctr of its own
// version, its own directories and its own socket.
package daemons
