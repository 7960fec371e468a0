// SPDX-License-Identifier: Apache-2.0

package iovec

import (
	"bytes"
	"testing"
)

func list(parts ...string) (bufs [][]byte) {
	for _, p := range parts {
		bufs = append(bufs, []byte(p))
	}
	return bufs
}

func TestGatherScatter(t *testing.T) {
	for _, c := range []struct {
		bufs [][]byte
		size int // of the plain buffer
		n    int
	}{
		{nil, 4, 0},
		{list("abc"), 0, 0},
		{list("abc"), 3, 3},
		{list("abc"), 5, 3},
		{list("ab", "", "cde", "f"), 4, 4},
		{list("ab", "cde", "f"), 6, 6},
		{list("ab", "cde", "f"), 9, 6},
	} {
		all := bytes.Join(c.bufs, nil)
		if got := Len(c.bufs); got != uint64(len(all)) {
			t.Errorf("%q: length %d", c.bufs, got)
		}
		dst := make([]byte, c.size)
		if n := Gather(dst, c.bufs); n != c.n || !bytes.Equal(dst[:n], all[:n]) {
			t.Errorf("gather %d of %q: %d, %q", c.size, c.bufs, n, dst)
		}
		src := bytes.Repeat([]byte("x"), c.size)
		want := append(append([]byte{}, src[:c.n]...), all[c.n:]...)
		if n := Scatter(c.bufs, src); n != c.n || !bytes.Equal(bytes.Join(c.bufs, nil), want) {
			t.Errorf("scatter %d: %d, %q, want %q", c.size, n, c.bufs, want)
		}
	}
}

func TestSkip(t *testing.T) {
	const all = "abcdef"
	for n := range len(all) + 1 {
		left := Skip(list("ab", "", "cde", "f"), n)
		if got := string(bytes.Join(left, nil)); got != all[n:] {
			t.Errorf("%d: %q is left", n, got)
		}
		if len(left) > 0 && len(left[0]) == 0 {
			t.Errorf("%d: an empty buffer comes first", n)
		}
	}
}

func TestCounts(t *testing.T) {
	var c Counts
	c.ReadBytes.Add(1)
	c.WriteBytes.Add(2)
	c.ReadOps.Add(3)
	c.WriteOps.Add(4)
	sum := c.Load()
	sum.Add(IO{ReadBytes: 10, WriteBytes: 20, ReadOps: 30, WriteOps: 40})
	if want := (IO{11, 22, 33, 44}); sum != want {
		t.Errorf("got %+v, want %+v", sum, want)
	}
}
