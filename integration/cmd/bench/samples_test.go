// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		in       []time.Duration
		num, den int
		want     time.Duration
	}{
		{nil, 1, 2, 0},
		{[]time.Duration{7}, 1, 4, 7},
		{[]time.Duration{30, 10, 20}, 1, 2, 20},
		{[]time.Duration{40, 10, 20, 30}, 1, 2, 25},
		{[]time.Duration{50, 10, 20, 30, 40}, 3, 4, 40},
	} {
		if got := quantile(c.in, c.num, c.den); got != c.want {
			t.Errorf("quantile(%v, %d/%d) = %v, want %v", c.in, c.num, c.den, got, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	s := newSamples()
	for _, err := range []error{
		s.add(runc, "1000000000\n"),
		s.add(ours, "2500000000\n"+`time="x" level=info msg="container started" id=a steps="populate=1.500ms agent-hello=900.000ms" total=1s`+"\n"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"populate", "agent-hello", "900.0", "2500.0", "2.50"} {
		if got := s.table(); !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func TestAddRefuses(t *testing.T) {
	for _, output := range []string{"", "0\n", "abc\n", "5\n", "5\nsteps=\"x\"\n", "5\nsteps=\"x=1parsec\"\n"} {
		if err := newSamples().add(ours, output); err == nil {
			t.Errorf("add(%q) succeeded", output)
		}
	}
}
