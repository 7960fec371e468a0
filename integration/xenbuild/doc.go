// SPDX-License-Identifier: Apache-2.0

// Package xenbuild makes an X-Kernel from source: the hypervisor of a Debian
// release with the project's patches, in Debian's configuration, and a manifest
// that says what it was made from.
//
// Only the hypervisor is built; the machine's tools, if it has any, fit it as
// they fit Debian's. Builds are reproducible: the same source package, patches
// and compiler give the same bytes. They are kept in a cache under a key of all
// of those. The package installs nothing on the machine; tools that are missing
// are named with the command that installs them.
package xenbuild
