// SPDX-License-Identifier: Apache-2.0

// Package shim is the program containerd-shim-xcontainer-v2: it decides by the
// command line which part of itself runs, and puts the parts together. In one
// binary are
//
//   - start, delete and -info, which containerd runs for a moment (bootstrap),
//   - the serving process of a container (task),
//   - its holder process (holder),
//   - its device back-end, a process without any right on Xen (libos).
package shim
