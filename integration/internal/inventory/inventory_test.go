// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
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
		case "ctr":
			return "web\n", nil
		case "xcontainerctl":
			return `[{"domid": 0}, {"domid": 7, "container": "web"}]`, nil
		}
		return "", errors.New("unknown command")
	}}
	got, err := h.Take()
	if want := []string{"container web", "domain 7 of web", "mount /a", "mount /b"}; err != nil || !slices.Equal(got, want) {
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

// Left waits until nothing more is seen, and asks once; what stays is told of.
func TestLeft(t *testing.T) {
	looks, questions, containers := 0, 0, ""
	h := Host{Run: func(argv ...string) (string, error) {
		switch argv[0] {
		case "sh":
			if looks++; looks == 1 {
				return "", errors.New("no machine for a moment")
			} else if looks == 2 {
				return "mount /a\nprocess 9\n", nil
			}
			return "mount /a\n", nil
		case "ctr":
			questions++
			return containers, nil
		}
		return "", errors.New("unknown command")
	}}
	more, now, err := h.Left([]string{"mount /a"}, time.Minute)
	if err != nil || len(more) > 0 || !slices.Equal(now, []string{"mount /a"}) || looks != 3 || questions != 1 {
		t.Errorf("more %q of %q, %v, after %d looks and %d questions", more, now, err, looks, questions)
	}
	containers = "web\n"
	if more, _, err := h.Left([]string{"mount /a"}, 0); err != nil || !slices.Equal(more, []string{"container web"}) {
		t.Errorf("more %q, %v", more, err)
	}
}
