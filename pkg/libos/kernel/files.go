// SPDX-License-Identifier: Apache-2.0

package kernel

import "embed"

// SourcePackage is the Debian package with the kernel's source.
const SourcePackage = "linux-source-6.12"

// Names in Files.
const (
	// Config is the configuration on top of the kernel's tinyconfig.
	Config = "config/xcontainer.config"
	// Patches is the folder of the patches; Series lists them in order.
	Patches = "patches"
	Series  = "patches/series"
)

// Sources says where in the kernel tree the files of the driver belong.
var Sources = map[string]string{
	"driver/virtio_noxs.c": "drivers/virtio/virtio_noxs.c",
	"driver/noxs.h":        "include/xen/noxs.h",
}

// Files are the inputs of a build.
//
//go:embed config patches driver
var Files embed.FS
