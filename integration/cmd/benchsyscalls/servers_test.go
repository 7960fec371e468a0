// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/integration/internal/ctrbox"
	"github.com/xcontainer/xcontainer/integration/internal/inputs"
)

var someImages = []inputs.ServerImage{{Name: "old:lab", Glibc: "2.36"}, {Name: "new:lab", Glibc: "2.41"}}

func TestServerWorkloads(t *testing.T) {
	all := serverWorkloads(someImages)
	if len(all) != len(someImages)*len(servers)+1 {
		t.Errorf("%d workloads", len(all))
	}
	var seen []string
	for _, w := range all {
		if slices.Contains(seen, w.name) {
			t.Errorf("two workloads %s", w.name)
		}
		seen = append(seen, w.name)
		// Go's and awk's formats have been in these scripts.
		if script := workScript(w, 5); strings.Contains(script, "SECONDS") || strings.Contains(script, "%!") {
			t.Errorf("%s: %s", w.name, script)
		} else if text, err := exec.CommandContext(t.Context(), "sh", "-n", "-c", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", w.name, err, text)
		}
	}
	if w := all[len(servers)]; w.image != "new:lab" || !strings.HasSuffix(w.title, "glibc 2.41") {
		t.Errorf("workload %s is %q in %s", w.name, w.title, w.image)
	}
	if script := servers[3].prepare(); !strings.Contains(script, "-d $(((SECONDS + 1) / 2))s") {
		t.Errorf("no warm-up of half the time in %s", script)
	}
}

func TestKeep(t *testing.T) {
	s := &suite{workloads: serverWorkloads(someImages)}
	if err := s.keep("go-2.36,none"); err == nil {
		t.Error("keep took a row that there is not")
	}
	if err := s.keep("musl,go-2.36"); err != nil || len(s.workloads) != 2 || s.workloads[0].name != "go-2.36" {
		t.Errorf("keep: %v, %d workloads", err, len(s.workloads))
	}
	if _, err := choose(environments("4.17"), "runc-pti,runc-nopti,xen-off-up,xen-full-up,xkernel-full-up"); err != nil {
		t.Error(err)
	}
}

// TestServerScript has a shell run it, with something that is no server, on a port
// where the test listens.
func TestServerScript(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const fine = "echo getpid.min SECONDS ns; echo getpid.mean 512 ns"
	for _, c := range []struct {
		warm, load string
		ok         bool
	}{
		{"", fine, true},
		{"n=512", "echo getpid.min SECONDS ns; echo getpid.mean $n ns", true},
		{"false", fine, false},
		{"", fine + "; exit 3", false},
	} {
		dir := t.TempDir()
		s := server{start: "exec sleep 1000", port: l.Addr().(*net.TCPAddr).Port, warm: c.warm, load: c.load}
		w := workload{prepare: s.prepare() + "\necho $server >/dev/shm/pid", script: s.load, parse: parseSysbench}
		script := strings.ReplaceAll(workScript(w, 490), "/dev/shm", dir)
		out, err := exec.CommandContext(t.Context(), "sh", "-c", script).Output()
		if (err == nil) != c.ok {
			t.Errorf("%q, %q: %v", c.warm, c.load, err)
		}
		if !c.ok {
			continue
		}
		if got, err := parseWork(w, string(out)); err != nil || got.figure != (figure{490, 512}) {
			t.Errorf("%q, %q: %v, %v", c.warm, c.load, got, err)
		}
		pid, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pid))); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the server outlives its shell: %v", err)
		}
	}
}

const (
	wrkOutput = `Running 1s test @ http://127.0.0.1:8001/index.html
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.48ms    5.29ms  19.32ms   81.81%
    Req/Sec     0.88k   692.35     2.10k    80.00%
  874 requests in 1.00s, 443.83KB read
Requests/sec:    800.00
Transfer/sec:    443.67KB
`
	memcaslapOutput = `servers: 127.0.0.1:11211
cmd_get: 64560
cmd_set: 7181
get_misses: 0

Run time: 1.0s Ops: 71741 TPS: 800 Net_rate: 80.2M/s
`
	redisOutput = `"test","rps","avg_latency_ms"
"GET","800.00","0.487"
`
)

func TestParseRates(t *testing.T) {
	get := func(out string) (figure, error) { return parseRedis("GET", out) }
	for _, c := range []struct {
		parse func(string) (figure, error)
		in    string
		ok    bool
	}{
		{parseWrk, wrkOutput, true},
		{parseWrk, "", false},
		{parseWrk, wrkOutput + wrkOutput, false},
		{parseWrk, strings.Replace(wrkOutput, "800.00", "0.00", 1), false},
		{parseWrk, "  Non-2xx or 3xx responses: 874\n" + wrkOutput, false},
		{parseWrk, "  Socket errors: connect 0, read 0, write 0, timeout 3\n" + wrkOutput, false},
		{parseMemcaslap, memcaslapOutput, true},
		{parseMemcaslap, "", false},
		{parseMemcaslap, strings.Replace(memcaslapOutput, "TPS: 800", "TPS: 0", 1), false},
		{parseMemcaslap, strings.Replace(memcaslapOutput, "misses: 0", "misses: 646", 1), false},
		{parseMemcaslap, strings.Replace(memcaslapOutput, "misses: 0", "misses: 645", 1), true},
		{parseMemcaslap, strings.Replace(memcaslapOutput, "get_misses", "misses", 1), false},
		{get, redisOutput, true},
		{get, "", false},
		{get, strings.Replace(redisOutput, "GET", "SET", 1), false},
		{get, strings.Replace(redisOutput, "rps", "rate", 1), false},
		{get, strings.Replace(redisOutput, "800.00", "inf", 1), false},
		{get, redisOutput + "\"SET\",\"1\",\"1\"\n", false},
		{get, "Error from server: no\n" + redisOutput, false},
	} {
		got, err := c.parse(c.in)
		if (err == nil) != c.ok || c.ok && math.Abs(got.best-1.25e6) > 1e-3 {
			t.Errorf("%q: %v, %v", c.in, got, err)
		}
	}
}

func TestServersTable(t *testing.T) {
	s := &suite{file: "servers", legend: serverLegend, shares: true, workloads: serverWorkloads(someImages)}
	r := &report{suite: s}
	for i, c := range []config{{name: withPTI, runtime: ctrbox.Runc}, {name: "x", runtime: ctrbox.Ours, rewriting: true}} {
		col := column{config: c, accel: "tcg", results: map[string]result{}}
		for _, w := range s.workloads {
			col.results[w.name] = result{figure{1e6 / float64(1+i), 1e6 / float64(1+i)}, calls{uint64(999 * i), uint64(i)}}
		}
		r.columns = append(r.columns, col)
	}
	table := r.markdown()
	if got := strings.Join(cells(t, table, "redis, GET, glibc 2.36, per second"), " / "); got != "1,000 / 2,000 (2.00×), 99.9 %" {
		t.Errorf("redis: %s", got)
	}
	if got := cells(t, table, "80,000 calls by musl, shared, per second"); got[0] != "80,000,000" {
		t.Errorf("musl: %s", got[0])
	}
	if !strings.Contains(table, "more is better") || strings.Contains(table, "is linked with") {
		t.Errorf("not what this table is of:\n%s", table)
	}
}
