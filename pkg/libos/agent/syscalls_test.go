// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

func TestReadSyscalls(t *testing.T) {
	counted := func(n map[string]uint64) *agentapi.Syscalls { return &agentapi.Syscalls{Counters: n} }
	for name, c := range map[string]struct {
		text string
		want *agentapi.Syscalls
	}{
		"all": {"mode bounce\nrewriting on\ncalls_direct 18446744073709551615\ncalls_bounced 3\nsites_abs 0\n",
			&agentapi.Syscalls{Mode: "bounce", Rewriting: "on",
				Counters: map[string]uint64{"calls_direct": 1<<64 - 1, "calls_bounced": 3, "sites_abs": 0}}},
		"off":            {"mode off\nrewriting off\n", &agentapi.Syscalls{Mode: "off", Rewriting: "off"}},
		"of the future":  {"mode new\nnovel 5\ncalls_direct   7\n", &agentapi.Syscalls{Mode: "new", Counters: map[string]uint64{"novel": 5, "calls_direct": 7}}},
		"odd":            {"a\n\nb -1\nc 1 2\nd 18446744073709551616\ne x\nf 6\n", counted(map[string]uint64{"f": 6})},
		"cut in a line":  {"a 1\nb 12", counted(map[string]uint64{"a": 1})},
		"far too long":   {"a 1\n" + strings.Repeat("x", maxSyscallsFile) + "\nb 2\n", counted(map[string]uint64{"a": 1})},
		"cut by the end": {"a 1\n" + strings.Repeat("\n", maxSyscallsFile-len("a 1\n")-len("b 2")) + "b 23\n", counted(map[string]uint64{"a": 1})},
		"empty":          {"", &agentapi.Syscalls{}},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "xlibos")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := readSyscalls(file); !proto.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
	if got := readSyscalls(filepath.Join(t.TempDir(), "none")); got == nil || !proto.Equal(got, &agentapi.Syscalls{}) {
		t.Errorf("no file: %v", got)
	}
}
