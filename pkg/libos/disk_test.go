// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/xcontainer/xcontainer/pkg/noxs"
)

func TestLayout(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(10*512 + 511); err != nil {
		t.Fatal(err)
	}
	l, err := layout([]Disk{{f, false}, {f, true}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []noxs.Disk{{Sectors: 10}, {Sectors: 10, ReadOnly: true}} {
		if got, err := noxs.DiskOf(l.Devices[2+i]); err != nil || got != want {
			t.Errorf("disk %d: %+v, %v", i, got, err)
		}
	}
	if l, err := layout(nil); err != nil || len(l.Devices) != 2 {
		t.Error(err)
	}
	many := make([]Disk, MaxDisks+1)
	for i := range many {
		many[i].File = f
	}
	if _, err := layout(many); !errors.Is(err, noxs.ErrLayout) {
		t.Errorf("too many: %v", err)
	}
	f.Close()
	if _, err := layout(many[:1]); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed file: %v", err)
	}
}
