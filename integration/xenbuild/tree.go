// SPDX-License-Identifier: Apache-2.0

package xenbuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
	"github.com/xcontainer/xcontainer/integration/internal/srcbuild"
)

// unpack makes a source tree as dpkg-source does: upstream's archive, Debian's
// folder in it, and Debian's patches applied. The files have been checked.
func unpack(ctx context.Context, src apt.SourcePackage, tree string) error {
	upstream, err := onlyFile(src, ".orig.tar.")
	if err != nil {
		return err
	}
	debian, err := onlyFile(src, ".debian.tar.")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return fmt.Errorf("xenbuild: make the source tree: %w", err)
	}
	for _, args := range [][]string{
		{"-xf", upstream, "-C", tree, "--strip-components=1"},
		{"-xf", debian, "-C", tree},
	} {
		if _, err := srcbuild.Output(srcbuild.Command(ctx, "", nil, "tar", args...)); err != nil {
			return fmt.Errorf("xenbuild: unpack: %w", err)
		}
	}
	const patches = "debian/patches"
	if _, err := os.Stat(filepath.Join(tree, patches, srcbuild.SeriesFile)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := srcbuild.ApplySeries(ctx, tree, os.DirFS(tree), patches); err != nil {
		return fmt.Errorf("xenbuild: Debian's patches: %w", err)
	}
	return nil
}

// toolsFolder is where prepare puts programs for the build, in the tree.
const toolsFolder = "xcontainer-tools"

// prepare takes Debian's configuration, and answers a question that Debian's
// patches ask the machine, so that the answer is the same everywhere.
func prepare(tree string) error {
	config, err := os.ReadFile(filepath.Join(tree, "debian", "xen-kconfig"))
	if err == nil {
		err = os.WriteFile(filepath.Join(tree, "xen", ".config"), config, 0o644)
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(tree, toolsFolder), 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(tree, toolsFolder, "lsb_release"), []byte("#!/bin/sh\necho Debian\n"), 0o755)
	}
	if err != nil {
		return fmt.Errorf("xenbuild: prepare the source tree: %w", err)
	}
	return nil
}

// onlyFile finds the one file of the package with mark in its name.
func onlyFile(src apt.SourcePackage, mark string) (string, error) {
	var found []string
	for _, f := range src.Files {
		if strings.Contains(filepath.Base(f.Path), mark) {
			found = append(found, f.Path)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("xenbuild: source package %s has %d files *%s*, want one", src.Name, len(found), mark)
	}
	return found[0], nil
}

// tellsVersion finds the version in a hypervisor's binary and checks that it is
// an X-Kernel of the wanted one.
func tellsVersion(path, want string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("xenbuild: check the result: %w", err)
	}
	if !bytes.HasPrefix(b, []byte("\x7fELF")) {
		return "", fmt.Errorf("xenbuild: check the result: %s is no ELF file", filepath.Base(path))
	}
	// Xen keeps major and minor number apart from the rest.
	extra := regexp.MustCompile(`\x00(\.[0-9][0-9a-z.-]*` + regexp.QuoteMeta(vendor) + `)\x00`).FindSubmatch(b)
	if extra == nil {
		return "", fmt.Errorf("xenbuild: check the result: it does not call itself an X-Kernel")
	}
	return want + string(extra[1]), nil
}
