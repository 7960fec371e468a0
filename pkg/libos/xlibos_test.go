// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		vcpus uint32
		mode  XLibOS
		want  string
	}{
		{1, "", cmdline},
		{1, XLibOSFull, cmdline},
		{4, XLibOSFull, cmdline + " maxcpus=1 noreplace-smp"},
		{1, XLibOSEntry, cmdline + " xlibos=entry"},
		{1, XLibOSOff, cmdline + " xlibos=off"},
		{2, XLibOSOff, cmdline + " maxcpus=1 noreplace-smp xlibos=off"},
	} {
		if got, err := commandLine(c.vcpus, c.mode); err != nil || got != c.want {
			t.Errorf("%d CPUs, %q: %q, %v; want %q", c.vcpus, c.mode, got, err, c.want)
		}
	}
	for _, mode := range []XLibOS{"Full", "off init=/bin/sh", " "} {
		if got, err := commandLine(1, mode); err == nil || !strings.Contains(err.Error(), "neither full, entry nor off") {
			t.Errorf("%q: %q, %v", mode, got, err)
		}
	}
}
