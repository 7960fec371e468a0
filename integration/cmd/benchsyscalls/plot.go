// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// Sizes in the plot, in pixels.
const (
	barWidth   = 9
	groupSpace = 16 // between the bars of two workloads, at least
	groupWidth = 80 // of bars and space, at least: their label needs it
	plotHeight = 420
	leftMargin = 64
	topMargin  = 92
	lowMargin  = 34
	legendStep = 190 // from one entry to the next
	legendRows = 2
)

// plot renders the times as bars on a logarithmic scale, in SVG: workloads side by
// side, in each the configurations, and where a workload makes many calls, the time
// of one.
func (r *report) plot() string {
	s := r.scale()
	group := max(groupWidth, len(r.columns)*barWidth+groupSpace)
	entries := (len(r.columns) + legendRows - 1) / legendRows
	width := max(leftMargin+len(r.workloads)*group+groupSpace, leftMargin+entries*legendStep)
	height := topMargin + plotHeight + lowMargin
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n",
		width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	text(&b, leftMargin, 18, ` font-weight="bold"`, "Time of one operation or call, on a logarithmic scale: shorter is better")
	text(&b, leftMargin, 36, "", r.machine())
	r.legend(&b)
	s.grid(&b, width)
	for i, w := range r.workloads {
		x := leftMargin + groupSpace + i*group
		for j, c := range r.columns {
			v, ok := c.results[w.name]
			if !ok {
				continue
			}
			ns := v.best / w.calls
			y := s.y(ns)
			fmt.Fprintf(&b, `<rect x="%d" y="%.1f" width="%d" height="%.1f" fill="%s"><title>%s</title></rect>`+"\n",
				x+j*barWidth, y, barWidth-1, topMargin+plotHeight-y, c.config.color,
				escape(fmt.Sprintf("%s, %s: %s", w.name, c.config.title, duration(ns))))
		}
		text(&b, x+len(r.columns)*barWidth/2, topMargin+plotHeight+18, ` text-anchor="middle"`, w.label())
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// label is short, since it is below some bars.
func (w workload) label() string {
	if w.calls > 1 {
		return w.name + ", a call"
	}
	return w.name
}

// legend says which colour is which configuration, in rows of equal length.
func (r *report) legend(b *strings.Builder) {
	entries := (len(r.columns) + legendRows - 1) / legendRows
	for i, c := range r.columns {
		x, y := leftMargin+i%entries*legendStep, 56+i/entries*18
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="12" height="12" fill="%s"/>`+"\n", x, y-10, c.config.color)
		text(b, x+18, y, "", c.config.title)
	}
}

// scale is the axis of times: whole powers of ten of nanoseconds.
type scale struct{ low, high int }

// scale finds the powers that all bars are between. A bar has some length.
func (r *report) scale() scale {
	least, most := math.Inf(1), math.Inf(-1)
	for _, w := range r.workloads {
		for _, c := range r.columns {
			if v, ok := c.results[w.name]; ok {
				least, most = min(least, v.best/w.calls), max(most, v.best/w.calls)
			}
		}
	}
	if least > most { // there is nothing
		least, most = 100, 100
	}
	s := scale{int(math.Floor(math.Log10(least) - 0.1)), int(math.Ceil(math.Log10(most)))}
	s.high = max(s.high, s.low+1)
	return s
}

// y is where a time is.
func (s scale) y(ns float64) float64 {
	part := (math.Log10(ns) - float64(s.low)) / float64(s.high-s.low)
	return topMargin + plotHeight*(1-min(max(part, 0), 1))
}

func (s scale) grid(b *strings.Builder, width int) {
	for power := s.low; power <= s.high; power++ {
		ns := math.Pow10(power)
		fmt.Fprintf(b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1[2]f" stroke="#cccccc"/>`+"\n", leftMargin, s.y(ns), width)
		text(b, leftMargin-6, int(s.y(ns))+4, ` text-anchor="end"`, duration(ns))
	}
}

// duration renders a time with the unit that suits it.
func duration(ns float64) string {
	// Some time just below a unit would be rounded up to a thousand of the one before.
	const up = 0.9995
	for _, u := range []unit{{name: "s", ns: 1e9}, {name: "ms", ns: 1e6}, {name: "µs", ns: 1e3}} {
		if ns >= up*u.ns {
			return fmt.Sprintf("%.3g %s", ns/u.ns, u.name)
		}
	}
	return fmt.Sprintf("%.3g ns", ns)
}

// text writes s; attributes are further ones of its element, with a blank before each.
func text(b *strings.Builder, x, y int, attributes, s string) {
	fmt.Fprintf(b, `<text x="%d" y="%d"%s>%s</text>`+"\n", x, y, attributes, escape(s))
}

func escape(s string) string {
	var b strings.Builder
	// A Builder takes everything.
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
