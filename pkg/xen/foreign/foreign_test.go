// SPDX-License-Identifier: Apache-2.0

package foreign

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

func TestFirstBadNamesTheFrame(t *testing.T) {
	if err := firstBad([]abi.MFN{1, 2}, []int32{0, 0}); err != nil {
		t.Error(err)
	}
	err := firstBad([]abi.MFN{1, 0xabc}, []int32{0, -int32(unix.EINVAL)})
	if !errors.Is(err, ErrFrame) || !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "0xabc (1 of 2)") {
		t.Error(err)
	}
}

func TestBatchArg(t *testing.T) {
	want := []byte{3, 0, 0, 0, 0x34, 0x12, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0}
	if got := batchArg(3, 0x1234, 1, 2, 4); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func TestSplit(t *testing.T) {
	mem := make([]byte, 5*abi.PageSize)
	mem[0], mem[abi.PageSize], mem[4*abi.PageSize] = 1, 2, 3
	page, pool, console := split(mem)
	if len(page) != abi.PageSize || len(pool) != 3*abi.PageSize || len(console) != abi.PageSize ||
		page[0] != 1 || pool[0] != 2 || console[0] != 3 {
		t.Errorf("%d, %d, %d bytes", len(page), len(pool), len(console))
	}
	if cap(page) != len(page) || cap(pool) != len(pool) {
		t.Error("an append to one part would write into the next")
	}
}

func TestMapOfWhatIsNoPrivcmdFails(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, frames := range [][]abi.MFN{nil, {1}} {
		if _, _, err := Map(f, 3, frames, true); err == nil || !strings.HasPrefix(err.Error(), "map ") {
			t.Errorf("%d frames: %v", len(frames), err)
		}
	}
	if err := Restrict(f, 3); err == nil || !strings.Contains(err.Error(), "domain 3") {
		t.Errorf("restrict: %v", err)
	}
}

func TestMapSpecJSON(t *testing.T) {
	in := MapSpec{DomID: 3, Page: 1 << 40, Pool: []abi.MFN{5, 4}, Console: 9}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"domid":3,"page":1099511627776,"pool":[5,4],"console":9}`
	if string(text) != want {
		t.Errorf("%s, want %s", text, want)
	}
}
