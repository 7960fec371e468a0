// SPDX-License-Identifier: Apache-2.0

package kernelbuild

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
)

// Licences, as SPDX expressions.
const (
	kernelLicence = "GPL-2.0-only WITH Linux-syscall-note"
	agentLicence  = "Apache-2.0"
)

// Manifest says what the library OS's files were made from.
type Manifest struct {
	Kernel    KernelManifest     `json:"kernel"`
	Initramfs *InitramfsManifest `json:"initramfs,omitempty"`
}

// KernelManifest describes the kernels of one build. Hashes are hex SHA-256.
type KernelManifest struct {
	Version       string     `json:"version"` // as uname -r prints it
	Images        []Image    `json:"images"`
	SourcePackage string     `json:"source_package"`
	SourceVersion string     `json:"source_version"`
	SourceSHA256  string     `json:"source_sha256"` // of the package file
	Files         []FileHash `json:"files"`         // the project's own inputs
	Compiler      string     `json:"compiler"`
	Linker        string     `json:"linker"`
	Licence       string     `json:"licence"`
}

// Image is one of the kernels.
type Image struct {
	File         string `json:"file"`
	SHA256       string `json:"sha256"`
	ConfigSHA256 string `json:"config_sha256"` // of the complete configuration
}

// InitramfsManifest describes the initramfs.
type InitramfsManifest struct {
	SHA256      string   `json:"sha256"`
	AgentSHA256 string   `json:"agent_sha256"`
	GoVersion   string   `json:"go_version"`
	Licence     string   `json:"licence"` // of the agent itself
	Modules     []Module `json:"modules"` // linked into it
}

// Module is a Go module that is part of the agent.
type Module struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	Licence string `json:"licence"`
}

// FileHash is a file and its hash.
type FileHash struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// hashFiles hashes all files of fsys, in the order of their names.
func hashFiles(fsys fs.FS) ([]FileHash, error) {
	var out []FileHash
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		out = append(out, FileHash{Name: name, SHA256: hash(b)})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("kernelbuild: hash inputs: %w", err)
	}
	return out, nil
}

func hash(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func readManifest(path string) (m Manifest, err error) {
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return m, fmt.Errorf("kernelbuild: read manifest: %w", err)
	}
	return m, nil
}

func writeManifest(path string, m Manifest) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = os.WriteFile(path, append(b, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("kernelbuild: write manifest: %w", err)
	}
	return nil
}
