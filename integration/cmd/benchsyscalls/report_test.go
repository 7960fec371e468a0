// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/integration/internal/ctrbox"
)

// sample is a report of made-up figures: all configurations, and each workload takes
// ns nanoseconds with the first of them, a tenth of that with the next, and so on.
func sample(ns float64) *report {
	r := &report{suite: &suite{file: "syscalls", workloads: workloads, libc: "glibc 0.0"}}
	for _, e := range environments("4.17") {
		for _, c := range e.configs {
			col := column{config: c, accel: "tcg", kernel: "0.0", results: map[string]result{}}
			for _, w := range workloads {
				x := result{figure: figure{best: ns * w.calls, mean: 1.2 * ns * w.calls}}
				if c.runtime == ctrbox.Ours {
					x.calls = calls{direct: 995, bounced: 5}
				}
				col.results[w.name] = x
			}
			ns /= 10
			r.columns = append(r.columns, col)
		}
	}
	return r
}

// cells are those of the row of that title.
func cells(t *testing.T, table, title string) []string {
	t.Helper()
	for line := range strings.Lines(table) {
		f := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range f {
			f[i] = strings.TrimSpace(f[i])
		}
		if len(f) > 1 && f[0] == title {
			return f[1:]
		}
	}
	t.Fatalf("no row %q in\n%s", title, table)
	return nil
}

func TestMarkdown(t *testing.T) {
	r := sample(100_000)
	table := r.markdown()
	rows := map[string]string{
		"getpid":                   "100,000 / 10,000 / 1,000 (100×, 10×) / 100 (1000×, 100×) / 10.0",
		"80,000 calls by libc, ms": "8,000 / 800 / 80.0 (100×, 10×) / 8.00 (1000×, 100×)",
		"on":                       "Linux / Linux / Xen 4.17 / Xen 4.17",
		"kernel":                   "0.0 / 0.0",
		"direct calls":             "– / – / 99.5 %",
	}
	if strings.Contains(table, "%!") {
		t.Errorf("the table has a bad format:\n%s", table)
	}
	for title, want := range rows {
		if got := strings.Join(cells(t, table, title), " / "); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s…", title, got, want)
		}
	}
	for line := range strings.Lines(table) {
		if n := strings.Count(line, "|"); n != 0 && n != len(r.columns)+2 {
			t.Errorf("%d columns in %q", n-2, line)
		}
	}
	if !strings.Contains(table, "emulates (TCG)") || !strings.Contains(table, "glibc 0.0") {
		t.Errorf("the table does not say what it is from:\n%s", table)
	}
	for _, note := range []string{"Fewer", "busy", "Not measured"} {
		if strings.Contains(table, note) {
			t.Errorf("a note that there is no reason for:\n%s", table)
		}
	}
}

func TestMarkdownInPart(t *testing.T) {
	r := sample(1000)
	r.columns = r.columns[5:6] // Xen, full, without anything to compare it with
	delete(r.columns[0].results, "read")
	r.columns[0].results["fork"] = result{figure{100, 300}, calls{1, 3}}
	r.columns[0].failure = "read: no | answer"
	r.columns[0].accel = "kvm"
	table := r.markdown()
	if got := cells(t, table, "getpid"); got[0] != "0.01" {
		t.Errorf("getpid: %q", got)
	}
	if got := cells(t, table, "read a byte of /dev/zero"); got[0] != missing {
		t.Errorf("read: %q", got)
	}
	for _, want := range []string{
		"* Xen, full, UP: fork 25.0 %\n", "* Xen, full, UP: fork 3.0\n", "* Xen, full, UP: read: no | answer\n", "(KVM)",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
	if strings.Contains(table, "TCG") {
		t.Errorf("TCG in\n%s", table)
	}
}

func TestMachine(t *testing.T) {
	r := sample(1000)
	r.columns[1].accel = "kvm"
	if got := r.machine(); !strings.Contains(got, "no comparison") {
		t.Errorf("machine() = %q", got)
	}
}

func TestNumber(t *testing.T) {
	ns, ms := workload{unit: nanoseconds}, workload{unit: milliseconds}
	ps := workload{unit: perSecond, calls: 10}
	for _, c := range []struct {
		w    workload
		ns   float64
		want string
	}{
		{ns, 9.876, "9.88"}, {ns, 98.76, "98.8"}, {ns, 987.6, "988"}, {ns, 9876, "9,876"}, {ns, 1234567.8, "1,234,568"},
		{ps, 1e6, "10,000"}, {ps, 2e9, "5.00"},
		{ms, 41.24e6, "41.2"}, {ms, 1155e6, "1,155"},
	} {
		if got := number(c.w, c.ns); got != c.want {
			t.Errorf("number(%v %s) = %s, want %s", c.ns, c.w.unit.name, got, c.want)
		}
	}
	for times, want := range map[float64]string{27.6: "28×", 1.234: "1.23×", 0.0456: "0.046×"} {
		if got := speed(times); got != want {
			t.Errorf("speed(%v) = %s, want %s", times, got, want)
		}
	}
	for ns, want := range map[float64]string{0.5: "0.5 ns", 512: "512 ns", 999.8: "1 µs", 1000: "1 µs", 12_345: "12.3 µs", 4.5e6: "4.5 ms", 2e9: "2 s"} {
		if got := duration(ns); got != want {
			t.Errorf("duration(%v) = %s, want %s", ns, got, want)
		}
	}
}

var bar = regexp.MustCompile(`<rect x="(\d+)" y="([0-9.]+)" width="(\d+)" height="([0-9.]+)" fill="(#[0-9a-f]+)"><title>getpid, ([^:]*): ([^<]*)</title>`)

func TestPlot(t *testing.T) {
	r := sample(1e7)
	svg := r.plot()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
	if n, want := strings.Count(svg, "<title>"), len(workloads)*len(r.columns); n != want {
		t.Errorf("%d bars, want %d", n, want)
	}
	if !strings.Contains(svg, "emulates (TCG)") {
		t.Error("the plot does not say that it is from an emulation")
	}
	if strings.Contains(svg, "%!") {
		t.Errorf("the plot has a bad format:\n%s", svg)
	}
	// A tenth of the time is shorter by the same length each time.
	bars := bar.FindAllStringSubmatch(svg, -1)
	if len(bars) != len(r.columns) {
		t.Fatalf("%d bars of getpid, want %d", len(bars), len(r.columns))
	}
	var heights []float64
	for i, m := range bars {
		y, _ := strconv.ParseFloat(m[2], 64)
		h, _ := strconv.ParseFloat(m[4], 64)
		if d := y + h - topMargin - plotHeight; d < -0.11 || d > 0.11 {
			t.Errorf("the bar of %s ends at %v, want %d", m[6], y+h, topMargin+plotHeight)
		}
		if m[5] != r.columns[i].config.color || m[6] != r.columns[i].config.title {
			t.Errorf("bar %d is %s of %s", i, m[5], m[6])
		}
		heights = append(heights, h)
	}
	for i := 2; i < len(heights); i++ {
		if d := (heights[i-1] - heights[i]) - (heights[0] - heights[1]); d < -0.3 || d > 0.3 {
			t.Errorf("heights %v are not logarithmic", heights)
		}
	}
	if bars[0][7] != "10 ms" || bars[3][7] != "10 µs" {
		t.Errorf("times %s and %s", bars[0][7], bars[3][7])
	}
}

func TestPlotOfNothing(t *testing.T) {
	r := &report{suite: &suite{}, columns: []column{{config: config{title: "a <b> & c"}}}}
	svg := r.plot()
	if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") || !strings.Contains(svg, "a &lt;b&gt; &amp; c") {
		t.Errorf("plot() =\n%s", svg)
	}
}

func TestSave(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "build", "bench")
	r := sample(1000)
	if err := r.save(dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"syscalls.md": r.markdown(), "syscalls.svg": r.plot()} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %v, %d bytes, want %d", name, err, len(got), len(want))
		}
	}
}
