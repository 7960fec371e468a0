// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"slices"
	"testing"
)

func TestParseDepends(t *testing.T) {
	got := parseDepends([]byte("license=GPL\x00depends=mbcache,jbd2,a-b\x00name=ext4\x00"))
	if want := []string{"mbcache", "jbd2", "a_b"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, none := range []string{"", "depends=\x00", "license=GPL"} {
		if got := parseDepends([]byte(none)); got != nil {
			t.Errorf("parseDepends(%q) = %v", none, got)
		}
	}
}

func TestModuleClosure(t *testing.T) {
	s := moduleSet{
		"a":    {"k/a.ko", []string{"b", "c"}},
		"b":    {"k/b.ko", []string{"c"}},
		"c":    {"k/c.ko", nil},
		"lost": {"k/lost.ko", []string{"gone"}},
		"x":    {"k/x.ko", []string{"y"}},
		"y":    {"k/y.ko", []string{"x"}},
	}
	got, err := s.closure([]string{"a", "c"})
	if want := []string{"c", "b", "a"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("closure = %v, %v, want %v", got, err, want)
	}
	dep, err := s.dep([]string{"c", "a"})
	if want := "k/c.ko:\nk/a.ko: k/b.ko k/c.ko\n"; err != nil || dep != want {
		t.Errorf("dep = %q, %v, want %q", dep, err, want)
	}
	for _, bad := range []string{"lost", "x", "none"} {
		if _, err := s.closure([]string{bad}); err == nil {
			t.Errorf("closure(%s) gave no error", bad)
		}
	}
}
