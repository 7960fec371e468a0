// SPDX-License-Identifier: Apache-2.0

package xkernel

import (
	"embed"
	"path"
)

// SourcePackage is the Debian package with Xen's source.
const SourcePackage = "xen"

// Version is a version of Xen that there are patches for.
type Version struct {
	Xen    string // "4.17"
	Debian string // code name of the Debian release that has it
	Known  Source
}

// Source is a version of SourcePackage that the patches are known to fit. What
// Debian has now is newer, but its older versions leave the archive, and some
// mirrors lag behind their own lists.
type Source struct {
	Version  string
	Archives []Archive
}

// Archive is a file of a source package.
type Archive struct {
	Path   string // in Debian's archive
	Size   int64
	SHA256 string // in hex
}

// Versions are all of them, the oldest first.
var Versions = []Version{
	{"4.17", "bookworm", Source{"4.17.5+72-g01140da4e8-1", []Archive{
		{"pool/main/x/xen/xen_4.17.5+72-g01140da4e8.orig.tar.xz", 4735560,
			"53922f4d0a02c577f2ea9d63f65989cd88715779eebeed879ca1d314103ee06e"},
		{"pool/main/x/xen/xen_4.17.5+72-g01140da4e8-1.debian.tar.xz", 139916,
			"5bcf3812c64585e270e0b3fa6ee8fd16dff7b9bc0f61375d648c64672484c4d9"},
	}}},
	{"4.20", "trixie", Source{"4.20.3+127-gc42374a105-0+deb13u1", []Archive{
		{"pool/main/x/xen/xen_4.20.3+127-gc42374a105.orig.tar.xz", 4961352,
			"df0831854a55a8f31cb3cb85036f2edc928e2ef098d77f815f5714bfafac68f3"},
		{"pool/main/x/xen/xen_4.20.3+127-gc42374a105-0+deb13u1.debian.tar.xz", 139540,
			"b1f909d626f3d4ba6965ba291dd97b0dfbbe48bb8e2510913cbc1760c5e8cb3e"},
	}}},
}

// Names in Files.
const (
	patches = "patches"
	// SecurityNotes go through the patches line by line.
	SecurityNotes = "SECURITY.md"
)

// Folder is the folder of the patches for a version of Xen. Its file "series"
// lists them in order.
func Folder(xen string) string { return path.Join(patches, xen) }

// Files are the patches and what is said about them.
//
//go:embed patches SECURITY.md
var Files embed.FS
