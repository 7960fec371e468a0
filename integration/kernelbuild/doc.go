// SPDX-License-Identifier: Apache-2.0

// Package kernelbuild makes the library OS's files from source: the kernels from
// Debian's kernel source with the project's configurations, patches and driver;
// the initramfs with the agent; and a manifest that says what they were made
// from.
//
// Builds are reproducible: the same source package, project files and compiler
// give the same bytes. The kernels are kept in a cache under a key of all of
// those. The package installs nothing on the machine; tools that are missing
// are named with the command that installs them.
package kernelbuild
