// SPDX-License-Identifier: Apache-2.0

package ctrbox

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestStartLine(t *testing.T) {
	b := Box{ID: "x", Image: "i", Runtime: Runc, Args: []string{"--privileged"}}
	const bare = "'ctr' 'run' '-d' '--runtime' 'io.containerd.runc.v2' '--privileged' 'i' 'x' 'sleep' '1000000'"
	if got := b.startLine(); got != bare {
		t.Errorf("startLine() = %s, want %s", got, bare)
	}
	b.Runtime, b.XLibOS, b.VCPUs = Ours, "entry", 2
	for _, want := range []string{"'" + Ours + "'", "'io.xcontainer.xlibos=entry'", "'io.xcontainer.vcpus=2'"} {
		if got := b.startLine(); !strings.Contains(got, want) {
			t.Errorf("no %s in startLine() = %s", want, got)
		}
	}
}

func TestExecLine(t *testing.T) {
	b := Box{ID: "x"}
	first, second := b.ExecLine(time.Minute, "it's"), b.ExecLine(time.Minute, "it's")
	if want := `timeout -k 10 60 ctr task exec --exec-id x1 x sh -c 'it'\''s'`; first != want {
		t.Errorf("ExecLine() = %s, want %s", first, want)
	}
	if first == second {
		t.Errorf("two commands with one ID: %s", first)
	}
}

func TestTail(t *testing.T) {
	if got := string(Tail([]byte(strings.Repeat("a", 5000) + "end\n"))); len(got) != 2000 || !strings.HasSuffix(got, "aend") {
		t.Errorf("Tail() has %d bytes: %q", len(got), got)
	}
}

func TestParseXLibOS(t *testing.T) {
	const text = "mode bounce\nrewriting on\ncalls_direct 900\ncalls_bounced 100\nsites_abs 7\nsites_near 2\nnew 1\n"
	x, err := ParseXLibOS(text)
	if err != nil || x.Mode != ModeBounce || !x.Rewriting || !x.On() || x.Direct() != 900 || x.Bounced() != 100 || x.Sites() != 9 {
		t.Errorf("ParseXLibOS() = %v, %v", x, err)
	}
	d := x.Since(XLibOS{Value: map[string]uint64{"calls_direct": 899, "calls_bounced": 101}})
	if got, want := d.String(), "mode bounce, rewriting true, calls_direct 1, sites_abs 7, sites_near 2, new 1"; got != want {
		t.Errorf("Since() = %s, want %s", got, want)
	}
	if x, err := ParseXLibOS(""); err != nil || x.On() || !reflect.DeepEqual(x, XLibOS{Value: map[string]uint64{}}) {
		t.Errorf("of nothing: %v, %v", x, err)
	}
	for _, text := range []string{"odd\n", "calls_direct -1\n", "calls_direct 1 2\n", "rewriting perhaps\n", "\n"} {
		if x, err := ParseXLibOS(text); err == nil {
			t.Errorf("ParseXLibOS(%q) = %v, want an error", text, x)
		}
	}
}
