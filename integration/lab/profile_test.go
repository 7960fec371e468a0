// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseRegisters(t *testing.T) {
	const text = "\r\nCPU#0\r\nRAX=0000000000000000 RBX=0000000000000001\r\n" +
		"RBP=0000000000000000 RSP=ffff83000009fe00\r\n" +
		"RIP=ffff82d040203c7f RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=0\r\n" +
		"\r\nCPU#1\r\nRSP=00007ffc00000010\r\nRIP=00000000004a1b2c RFL=00000202 [-------] CPL=3 II=0 A20=1 SMM=0 HLT=1\r\n"
	want := []Sample{
		{RIP: 0xffff82d040203c7f, RSP: 0xffff83000009fe00},
		{RIP: 0x4a1b2c, RSP: 0x7ffc00000010, Halted: true},
	}
	if got, err := parseRegisters(text); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("parseRegisters = %v, %v, want %v", got, err, want)
	}
	if got, err := parseRegisters("unknown command: 'info registers'"); err == nil {
		t.Errorf("parseRegisters of an error = %v, want an error", got)
	}
}

func TestParseWords(t *testing.T) {
	got := parseWords("ffff83000009fe00: 0x0000000000000003 0xffffffff80200010\r\n")
	if want := []uint64{3, 0xffffffff80200010}; !reflect.DeepEqual(got, want) {
		t.Errorf("parseWords = %#x, want %#x", got, want)
	}
	if got := parseWords("ffff83000009fe00: Cannot access memory\r\n"); got != nil {
		t.Errorf("parseWords of no memory = %#x, want nothing", got)
	}
}

func TestReadSymbols(t *testing.T) {
	const text = "ffffffff80200000 T _stext\n0000000000000000 A absolute\n" +
		"ffffffff80100000 t first\nffffffff80300000 D data\nffffffffc0000000 t of_a_module\t[module]\n"
	want := []Symbol{{0xffffffff80100000, "k: first"}, {0xffffffff80200000, "k: _stext"}, {0xffffffffc0000000, "k: of_a_module"}}
	if got, err := ReadSymbols(strings.NewReader(text), "k: "); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ReadSymbols = %v, %v, want %v", got, err, want)
	}
	if got, err := ReadSymbols(strings.NewReader("xyz T f\n"), ""); err == nil {
		t.Errorf("ReadSymbols of nonsense = %v, want an error", got)
	}
}

func TestProfile(t *testing.T) {
	symbols := []Symbol{{0xffff82d040200000, "xen: a"}, {0xffff82d040300000, "xen: b"}, {0xffffffff80200000, "f"}}
	samples := []Sample{
		{RIP: 0x400000}, {RIP: 0xffff82d040250000}, {RIP: 0xffff82d040300000}, {RIP: 0xffff82d040300010},
		{RIP: 0xffffffff80100000}, {RIP: 0xffffffff80200004}, {RIP: 0xffff82d0401fffff}, {RIP: 0xffffffff80200004, Halted: true},
	}
	want := []Line{{"xen: b", 2}, {"(Xen)", 1}, {"(halted)", 1}, {"(kernel)", 1}, {"(program)", 1}, {"f", 1}, {"xen: a", 1}}
	if got := Profile(samples, symbols); !reflect.DeepEqual(got, want) {
		t.Errorf("Profile = %v, want %v", got, want)
	}
}

func TestProfileOfTraps(t *testing.T) {
	symbols := []Symbol{{0xffff82d040200000, "xen: page_fault"}, {0xffffffff80200000, "f"}}
	samples := []Sample{
		{RIP: 0xffff82d040200000, Stack: []uint64{3, 0xffffffff80200010}},
		{RIP: 0xffff82d040200000, Stack: []uint64{3, 0xffffffff80200018}},
		{RIP: 0xffff82d040200000, Stack: []uint64{3, 0x400000}},
		{RIP: 0xffff82d040200002, Stack: []uint64{3, 0xffffffff80200010}},
		{RIP: 0xffff82d040200000},
	}
	want := []Line{{"xen: page_fault", 2}, {"xen: page_fault, by f", 2}, {"xen: page_fault, by (program)", 1}}
	if got := Profile(samples, symbols); !reflect.DeepEqual(got, want) {
		t.Errorf("Profile = %v, want %v", got, want)
	}
}
