// SPDX-License-Identifier: Apache-2.0

package virtioblk

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// FuzzHandle carries out arbitrary requests, cut into segments of arbitrary
// sizes, on a disk that is shorter than its file. Each gets a status, and no
// byte behind the disk's end is read or written.
func FuzzHandle(f *testing.F) {
	header := func(kind, sector byte, rest ...byte) []byte {
		h := make([]byte, 16)
		h[0], h[8] = kind, sector
		return append(h, rest...)
	}
	f.Add(header(typeIn, 1), []byte{16, 255, 255, 2, 1}, uint8(0))
	f.Add(header(typeOut, 2, bytes.Repeat([]byte{1}, 512)...), []byte{16, 255, 255, 2, 0, 1}, uint8(0))
	f.Add(header(typeFlush, 0), []byte{16, 0, 1}, uint8(0))
	f.Add(header(typeGetID, 0), []byte{16, 0, 20, 1}, uint8(1))
	f.Add(header(typeDiscard, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0), []byte{16, 16, 0, 1}, uint8(0))
	f.Add(header(typeWriteZeroes, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0), []byte{32, 0, 1}, uint8(0))
	f.Add(header(typeWriteZeroes, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0), []byte{32, 0, 1}, uint8(2))
	path := filepath.Join(f.TempDir(), "disk")
	const capacity, size = 8, 16 * 512
	secret := bytes.Repeat([]byte{0xee}, size-capacity*512)
	if err := os.WriteFile(path, append(make([]byte, capacity*512), secret...), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, out, cuts []byte, mode uint8) {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		k, err := newDisk(file, "disk0", noxs.Disk{Sectors: capacity, ReadOnly: mode&1 != 0})
		if err != nil {
			t.Fatal(err)
		}
		features := ^uint64(0)
		if mode&2 != 0 {
			features = 0
		}
		before, _ := os.ReadFile(path)
		c := chain(out, cuts)
		all := append([][]byte(nil), c.Writable...)
		err = handle(k, features, c)
		if (err != nil) != (len(all) == 0) {
			t.Fatalf("%d writable segments, error %v", len(all), err)
		}
		if err == nil {
			last := all[len(all)-1]
			if s := last[len(last)-1]; s > statusUnsupported {
				t.Errorf("status %d", s)
			}
			last[len(last)-1] = 0
		}
		for _, b := range all {
			if bytes.IndexByte(b, 0xee) >= 0 && !bytes.Contains(before[:capacity*512], []byte{0xee}) {
				t.Fatal("bytes behind the disk's end came back")
			}
		}
		after, _ := os.ReadFile(path)
		if !bytes.Equal(after[min(len(after), capacity*512):], secret) {
			t.Fatal("the file behind the disk's end has changed")
		}
		if mode&1 != 0 && !bytes.Equal(before, after) {
			t.Fatal("a read-only disk has changed")
		}
	})
}

// chain cuts out into readable segments of the sizes in cuts, up to a 0; the
// other sizes are those of the writable ones, of 1 byte each for the first 32
// values, then of 16 for each.
func chain(out, cuts []byte) *virtq.Chain {
	size := func(c byte) int {
		if c <= 32 {
			return int(c)
		}
		return int(c-32) * 16
	}
	c := &virtq.Chain{}
	i := 0
	for ; i < len(cuts) && cuts[i] != 0 && len(out) > 0; i++ {
		n := min(size(cuts[i]), len(out))
		c.Readable = append(c.Readable, out[:n:n])
		out = out[n:]
	}
	for ; i < len(cuts); i++ {
		if n := size(cuts[i]); n > 0 {
			c.Writable = append(c.Writable, make([]byte, n))
		}
	}
	return c
}
