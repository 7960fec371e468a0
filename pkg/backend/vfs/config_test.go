// SPDX-License-Identifier: Apache-2.0

package vfs

import "testing"

func TestConfigFit(t *testing.T) {
	for _, c := range []struct {
		limit uint64
		in    Config
		want  Config
		fails bool
	}{
		{limit: 1 << 20, want: Config{1024, 512, 32768, 1 << 21}},
		{limit: ^uint64(0), in: Config{Handles: 10, Nodes: 5}, want: Config{1024, 512, 10, 5}},
		{limit: 4096, want: Config{960, 512, 2368, 1 << 21}},
		{limit: 1024, want: Config{192, 192, 384, 1 << 21}},
		{limit: 511, fails: true},
	} {
		got, err := c.in.fit(c.limit)
		if (err != nil) != c.fails || err == nil && got != c.want {
			t.Errorf("limit %d, %+v: %+v, %v, want %+v", c.limit, c.in, got, err, c.want)
		}
	}
}

func TestParseDirent(t *testing.T) {
	good := append(make([]byte, 16), 24, 0, 4, 'a', 0, 0, 0, 0)
	for _, c := range []struct {
		what string
		in   []byte
		name string
		ok   bool
	}{
		{"good", good, "a", true},
		{"short", good[:18], "", false},
		{"longer than the buffer", good[:23], "", false},
		{"empty", append(make([]byte, 16), 19, 0, 4), "", false},
		{"zero length", make([]byte, 32), "", false},
	} {
		d, size, ok := parseDirent(c.in)
		if ok != c.ok || ok && (d.name != c.name || size != 24 || d.typ != 0x4000) {
			t.Errorf("%s: %+v, %d, %v", c.what, d, size, ok)
		}
	}
}

func TestGuestIno(t *testing.T) {
	vols := []*volume{{dev: 1, space: 1}, {dev: 2, space: 2}, {dev: 1, space: hashSpace}, {dev: 2, space: hashSpace}}
	seen := map[uint64]string{}
	for i, v := range vols {
		for _, ino := range []uint64{1, 2, 1<<inoBits - 1, 1 << inoBits, 1<<inoBits + 1, ^uint64(0)} {
			got := v.guestIno(ino)
			if got>>inoBits == 0 {
				t.Errorf("volume %d inode %#x lies in the synthetic tree's space", i, ino)
			}
			if other := seen[got]; other != "" {
				t.Errorf("volume %d inode %#x: %#x is taken by %s", i, ino, got, other)
			}
			seen[got] = "another"
		}
	}
}
