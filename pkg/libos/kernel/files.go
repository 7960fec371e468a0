// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"embed"
	"fmt"
)

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

// Flavour is one of the kernels that are built from the same source tree.
type Flavour struct {
	// Fragment is the name in Files of a configuration that comes behind Config,
	// so that its values count; empty: none.
	Fragment string
	// Vmlinux and FullConfig are what the results are called: the kernel without
	// symbols, and its complete configuration.
	Vmlinux, FullConfig string
}

// The flavours.
var (
	// SMP is the kernel of guests that can have several virtual CPUs.
	SMP = Flavour{Vmlinux: "vmlinux", FullConfig: "kernel.config"}
	// UP is that of guests that never have more than one. It does without locks,
	// and without %gs, which is then all the programs'.
	UP = Flavour{Fragment: "config/up.config", Vmlinux: "vmlinux-up", FullConfig: "kernel-up.config"}
	// Debug is SMP with the kernel's own checks, for tests.
	Debug = Flavour{Fragment: "config/debug.config", Vmlinux: "vmlinux-debug", FullConfig: "kernel-debug.config"}
)

// Options is the text of the flavour's configuration on top of tinyconfig. Where
// an option has two values, the last counts.
func (f Flavour) Options() (string, error) {
	text, err := Files.ReadFile(Config)
	if err == nil && f.Fragment != "" {
		var fragment []byte
		fragment, err = Files.ReadFile(f.Fragment)
		text = append(text, fragment...)
	}
	if err != nil {
		return "", fmt.Errorf("kernel: configuration of %s: %w", f.Vmlinux, err)
	}
	return string(text), nil
}

// Sources says where in the kernel tree the files of the driver belong.
var Sources = map[string]string{
	"driver/virtio_noxs.c": "drivers/virtio/virtio_noxs.c",
	"driver/noxs.h":        "include/xen/noxs.h",
}

// Files are the inputs of a build.
//
//go:embed config patches driver
var Files embed.FS
