// SPDX-License-Identifier: Apache-2.0

package xenbuild

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path"

	"github.com/xcontainer/xcontainer/integration/internal/srcbuild"
	"github.com/xcontainer/xcontainer/pkg/xen/xkernel"
)

// licence is Xen's, and that of the patches, as an SPDX expression.
const licence = "GPL-2.0-only"

// Manifest says what an X-Kernel was made from. Hashes are hex SHA-256.
type Manifest struct {
	Version       string `json:"version"` // as Xen tells it: "4.17.7-xkernel"
	SHA256        string `json:"sha256"`  // of GzipFile
	ConfigSHA256  string `json:"config_sha256"`
	SourcePackage string `json:"source_package"`
	SourceVersion string `json:"source_version"`
	// Superseded is the version that Debian's list has and the mirror does not
	// serve, so that an older one was taken: it may lack security fixes.
	Superseded string     `json:"superseded_by,omitempty"`
	Sources    []FileHash `json:"sources"` // the archives of the source package
	Patches    []FileHash `json:"patches"` // in the order of their application
	Compiler   string     `json:"compiler"`
	Linker     string     `json:"linker"`
	Licence    string     `json:"licence"`
}

// FileHash is a file and its hash.
type FileHash struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// hashPatches hashes the patches for a version of Xen.
func hashPatches(version string) ([]FileHash, error) {
	folder := xkernel.Folder(version)
	names, err := srcbuild.Series(xkernel.Files, folder)
	if err != nil {
		return nil, fmt.Errorf("xenbuild: %w", err)
	}
	var out []FileHash
	for _, name := range names {
		b, err := xkernel.Files.ReadFile(path.Join(folder, name))
		if err != nil {
			return nil, fmt.Errorf("xenbuild: %w", err)
		}
		sum := sha256.Sum256(b)
		out = append(out, FileHash{name, hex.EncodeToString(sum[:])})
	}
	return out, nil
}

func readManifest(path string) (m Manifest, err error) {
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return m, fmt.Errorf("xenbuild: read manifest: %w", err)
	}
	return m, nil
}

func writeManifest(path string, m Manifest) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = writeFile(path, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("xenbuild: write manifest: %w", err)
	}
	return nil
}
