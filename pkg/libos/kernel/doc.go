// SPDX-License-Identifier: Apache-2.0

// Package kernel holds what makes Debian's Linux source into the kernel of
// X-LibOS: a configuration, patches, and the virtio-noxs driver in C.
//
// It holds the files and nothing else; package kernelbuild of the integration
// module builds the kernel. The patches and the driver are GPL-2.0.
package kernel
