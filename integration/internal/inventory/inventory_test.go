// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestAdded(t *testing.T) {
	got := Added([]string{"a", "b", "b"}, []string{"a", "b", "b", "b", "c"})
	if want := "b c"; strings.Join(got, " ") != want {
		t.Errorf("added = %q, want %q", got, want)
	}
}

func TestTake(t *testing.T) {
	h := Host{HasXen: true, StateDir: "/s", RootDir: "/r", Run: func(argv ...string) (string, error) {
		switch argv[0] {
		case "sh":
			if argv[4] != "/s" || argv[5] != "/r" {
				return "", errors.New("other directories")
			}
			return "mount /b\nmount /a\n", nil
		case "xcontainerctl":
			return `[{"domid": 0}, {"domid": 7, "container": "web"}]`, nil
		}
		return "", errors.New("unknown command")
	}}
	got, err := h.Take()
	if want := []string{"domain 7 of web", "mount /a", "mount /b"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	h.Run = func(...string) (string, error) { return "", errors.New("no machine") }
	if _, err := h.Take(); err == nil {
		t.Error("no error without a machine")
	}
	if _, err := Domains(func(...string) (string, error) { return "x", nil }); err == nil {
		t.Error("no error for what is no list")
	}
}
