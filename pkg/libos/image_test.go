// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/pkg/libos/kernel"
	"github.com/xcontainer/xcontainer/pkg/xen/xentest"
)

// share makes a folder of the library OS's files but for one.
func share(t *testing.T, without string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		KernelFile: xentest.GuestKernel(), KernelFileUP: xentest.GuestKernel(), InitramfsFile: []byte("070701"),
	} {
		if name == without {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestLoadImage: how many virtual CPUs a guest can have decides which kernel it
// needs, and only that.
func TestLoadImage(t *testing.T) {
	for _, c := range []struct {
		without string
		vcpus   uint32
		missing string // file that the error names
	}{
		{"", 1, ""}, {"", 2, ""}, {"", 128, ""},
		{KernelFile, 1, ""},
		{KernelFile, 2, KernelFile},
		{KernelFileUP, 1, KernelFileUP},
		{KernelFileUP, 2, ""},
		{InitramfsFile, 1, InitramfsFile},
		{InitramfsFile, 2, InitramfsFile},
	} {
		dir := share(t, c.without)
		image, err := LoadImage(dir, c.vcpus)
		if err == nil {
			err = image.Close()
		}
		if c.missing == "" {
			if err != nil {
				t.Errorf("without %q, %d CPUs: %v", c.without, c.vcpus, err)
			}
			continue
		}
		want := " at " + filepath.Join(dir, c.missing) + ": install it with `make libos`"
		if !errors.Is(err, ErrImage) || !strings.Contains(err.Error(), want) {
			t.Errorf("without %q, %d CPUs: %v; want %q in it", c.without, c.vcpus, err, want)
		}
	}
}

// TestImageNames: what is built has the names that are looked for.
func TestImageNames(t *testing.T) {
	if kernel.SMP.Vmlinux != KernelFile || kernel.UP.Vmlinux != KernelFileUP {
		t.Errorf("built: %s, %s", kernel.SMP.Vmlinux, kernel.UP.Vmlinux)
	}
}
