// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/ctrbox"
)

// report is all that was found in a run.
type report struct {
	*suite
	columns []column
}

const (
	// restless is a mean, in fastest batches, that tells of a busy machine.
	restless = 1.5
	// fewDirect is a share of direct calls, in per cent, that has to be told of.
	fewDirect = 99
)

// save writes the table and the plot into a folder.
func (r *report) save(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("save the figures: %w", err)
	}
	for name, text := range map[string]string{r.file + ".md": r.markdown(), r.file + ".svg": r.plot()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("save the figures: %w", err)
		}
	}
	return nil
}

// markdown renders the table, what it shows, and notes.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n%s\n\n", r.machine(), r.suite.legend)
	r.row(&b, "", func(c column) string { return c.config.title })
	b.WriteString("|---|" + strings.Repeat("--:|", len(r.columns)) + "\n")
	r.row(&b, "on", func(c column) string { return c.config.system })
	r.row(&b, "kernel", func(c column) string { return c.kernel })
	for _, w := range r.workloads {
		title := w.title
		if w.unit != nanoseconds {
			title += ", " + w.unit.name
		}
		r.row(&b, title, func(c column) string { return r.cell(w, c) })
	}
	r.row(&b, "direct calls", func(c column) string { return percent(c.sum()) })
	for _, note := range r.notes() {
		b.WriteString("\n" + note + "\n")
	}
	return b.String()
}

const syscallLegend = `Nanoseconds for one operation, or milliseconds where it says so, in the fastest of
several batches. In brackets: how many times as fast as runc with pti=on, and as with
pti=off. Direct calls are those that Xen did not see.`

// machine says what the figures are from. Emulated ones must not pass for others.
func (r *report) machine() string {
	emulated, real := false, false
	for _, c := range r.columns {
		emulated = emulated || c.accel != "kvm"
		real = real || c.accel == "kvm"
	}
	text := "On a processor with hardware virtualisation (KVM)."
	switch {
	case emulated && real:
		text = "Partly on a processor that QEMU emulates (TCG): no comparison."
	case emulated:
		text = "On a processor that QEMU emulates (TCG), not on hardware."
	}
	if r.libc != "" {
		text += " The program is linked with " + r.libc + "."
	}
	return text
}

func (r *report) row(b *strings.Builder, title string, cell func(column) string) {
	b.WriteString("| " + title)
	for _, c := range r.columns {
		b.WriteString(" | " + strings.ReplaceAll(cell(c), "|", `\|`))
	}
	b.WriteString(" |\n")
}

// missing is the cell of what was not measured.
const missing = "–"

// cell is the time of a workload and how it compares, as far as there is something
// to compare with.
func (r *report) cell(w workload, c column) string {
	x, ok := c.results[w.name]
	if !ok {
		return missing
	}
	text := number(w, x.best)
	var speeds []string
	for _, base := range []string{withPTI, withoutPTI} {
		if y, ok := r.result(base, w); ok {
			speeds = append(speeds, speed(y.best/x.best))
		}
	}
	if len(speeds) > 0 && c.config.runtime != ctrbox.Runc {
		text += " (" + strings.Join(speeds, ", ") + ")"
	}
	if _, ok := x.share(); ok && r.shares {
		text += ", " + percent(x.calls)
	}
	return text
}

// result finds what a workload took with the configuration of that name.
func (r *report) result(name string, w workload) (result, bool) {
	for _, c := range r.columns {
		if c.config.name == name {
			x, ok := c.results[w.name]
			return x, ok
		}
	}
	return result{}, false
}

// sum is all calls of a column.
func (c column) sum() calls {
	var n calls
	for _, r := range c.results {
		n = n.plus(r.calls)
	}
	return n
}

// number renders a time in the workload's unit, or what it makes in a second, to
// three digits or to the unit.
func number(w workload, ns float64) string {
	v := ns / w.unit.ns
	if w.unit.rate {
		v = w.calls * 1e9 / ns
	}
	switch {
	case v < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return commas(strconv.FormatFloat(v, 'f', 0, 64))
}

// commas puts one before every three digits of a whole number.
func commas(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func speed(times float64) string {
	switch {
	case times >= 10:
		return fmt.Sprintf("%.0f×", times)
	case times >= 0.1:
		return fmt.Sprintf("%.2f×", times)
	}
	return fmt.Sprintf("%.3f×", times)
}

func percent(n calls) string {
	share, ok := n.share()
	if !ok {
		return missing
	}
	return fmt.Sprintf("%.1f %%", share)
}

// notes are what the table cannot show.
func (r *report) notes() []string {
	var notes []string
	add := func(title string, each func(column) string) {
		var parts []string
		for _, c := range r.columns {
			if text := each(c); text != "" {
				parts = append(parts, c.config.title+": "+text)
			}
		}
		if len(parts) > 0 {
			notes = append(notes, title+"\n* "+strings.Join(parts, "\n* "))
		}
	}
	add(fmt.Sprintf("Fewer than %d %% direct calls, although they are rewritten:\n", fewDirect), func(c column) string {
		return r.list(c, func(x result) string {
			if share, ok := x.share(); !ok || share >= fewDirect || !c.config.rewriting {
				return ""
			}
			return percent(x.calls)
		})
	})
	add(fmt.Sprintf("The mean is more than %.1f times the fastest batch, so the machine was busy:\n", restless), func(c column) string {
		return r.list(c, func(x result) string {
			if x.mean <= restless*x.best {
				return ""
			}
			return fmt.Sprintf("%.1f", x.mean/x.best)
		})
	})
	add("Not measured to the end:\n", func(c column) string { return c.failure })
	return notes
}

// list is what each finds to say of workloads.
func (r *report) list(c column, each func(result) string) string {
	var parts []string
	for _, w := range r.workloads {
		if x, ok := c.results[w.name]; ok {
			if text := each(x); text != "" {
				parts = append(parts, w.name+" "+text)
			}
		}
	}
	return strings.Join(parts, ", ")
}
