// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"strings"

	"github.com/containerd/containerd/api/types"
)

// What of a root file system's mounts is left to the shim (containerd's
// docs/shim-capabilities.md). A chain like format/mkdir/overlay comes whole only
// if all of it is claimed. Making file systems is not: containerd has done that
// by the time of Create.
var (
	mountTypes      = []string{"erofs"}
	mountTransforms = []string{"format", "mkdir"}
)

// allowMounts is the annotation of -info by which containerd 2.2 and 2.3 know
// the same; 2.4 asks for it only where the answer of `start` says nothing.
const allowMounts = "containerd.io/runtime-allow-mounts"

func mountCapabilities() *types.MountCapabilities {
	return &types.MountCapabilities{Types: mountTypes, Transforms: mountTransforms}
}

func mountAnnotation() string {
	list := append([]string(nil), mountTypes...)
	for _, t := range mountTransforms {
		list = append(list, t+"/*")
	}
	return strings.Join(list, ",")
}
