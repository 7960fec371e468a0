// SPDX-License-Identifier: Apache-2.0

package ctrbox

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// What a container can ask for: values of io.xcontainer.xlibos, as of Box.XLibOS.
const (
	XLibOSFull  = "full"
	XLibOSEntry = "entry"
	XLibOSOff   = "off"
)

// Modes that /proc/xlibos tells.
const (
	ModeOff    = "off"
	ModeBounce = "bounce"
	ModeShared = "shared"
)

// XLibOS is what a guest's /proc/xlibos says (docs/xlibos.md). Numbers that a kernel
// does not have are 0; all is empty for one without the file.
type XLibOS struct {
	Mode      string
	Rewriting bool
	Value     map[string]uint64
	Names     []string // of the values, in order
}

// ParseXLibOS reads lines of a name and a value, which may be none at all.
func ParseXLibOS(text string) (XLibOS, error) {
	x := XLibOS{Value: map[string]uint64{}}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch {
		case !ok:
			return x, fmt.Errorf("/proc/xlibos: no value in %q", line)
		case name == "mode":
			x.Mode = value
		case name == "rewriting" && (value == "on" || value == "off"):
			x.Rewriting = value == "on"
		default:
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return x, fmt.Errorf("/proc/xlibos: no number in %q", line)
			}
			x.Value[name] = n
			x.Names = append(x.Names, name)
		}
	}
	return x, nil
}

// On tells whether system calls may be calls.
func (x XLibOS) On() bool { return x.Mode != "" && x.Mode != ModeOff }

// OnAs tells whether they may be, in the way that goes with a lab's Xen, as its state
// names it: a guest takes the other if what it finds at boot is not as it should be.
func (x XLibOS) OnAs(xen string) bool {
	switch {
	case strings.Contains(xen, "/"): // a file, which may be either
		return x.On()
	case strings.HasPrefix(xen, "xkernel"):
		return x.Mode == ModeShared
	}
	return x.Mode == ModeBounce
}

// Direct and Bounced count system calls that Xen did not see, and those that it did.
func (x XLibOS) Direct() uint64  { return x.Value["calls_direct"] }
func (x XLibOS) Bounced() uint64 { return x.Value["calls_bounced"] }

// Forms are the names of the numbers of places that were rewritten, by form.
// sites_shared counts some of these once more.
var Forms = []string{"sites_abs", "sites_nop", "sites_stack", "sites_cancel", "sites_near"}

// Sites is the number of places that were rewritten, in whatever form.
func (x XLibOS) Sites() (n uint64) {
	for _, name := range Forms {
		n += x.Value[name]
	}
	return n
}

// Since is x less what was counted before.
func (x XLibOS) Since(before XLibOS) XLibOS {
	d := x
	d.Value = map[string]uint64{}
	for name, n := range x.Value {
		d.Value[name] = n - min(n, before.Value[name])
	}
	return d
}

// String has what is not 0.
func (x XLibOS) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "mode %s, rewriting %t", cmp.Or(x.Mode, "none"), x.Rewriting)
	for _, name := range x.Names {
		if n := x.Value[name]; n > 0 {
			fmt.Fprintf(&b, ", %s %d", name, n)
		}
	}
	return b.String()
}
