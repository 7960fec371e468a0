// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// monitorFile is the socket of QEMU's monitor in the state directory.
const monitorFile = "monitor"

// samplePause is the time between two looks at the machine. Each stops it for about
// a millisecond.
const samplePause = 10 * time.Millisecond

// Sample is where a physical CPU was.
type Sample struct {
	RIP, RSP uint64
	Halted   bool
	Stack    []uint64 // the first words at RSP, if the CPU was in Xen
}

// stackWords is enough to find who caused a trap: an error code and the instruction.
const stackWords = 2

// Samples looks at the instruction pointers of all physical CPUs again and again for
// a time. The machine is stopped for each look, so its clock goes slower than others.
func (l *Lab) Samples(ctx context.Context, d time.Duration) ([]Sample, error) {
	m, err := openMonitor(ctx, l.dir)
	if err != nil {
		return nil, fmt.Errorf("lab: profile: %w", err)
	}
	defer m.conn.Close()
	var all []Sample
	for end := time.Now().Add(d); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(samplePause) {
		s, err := m.look()
		if err != nil {
			return nil, fmt.Errorf("lab: profile: %w", err)
		}
		all = append(all, s...)
	}
	return all, ctx.Err()
}

// monitorLimit is what QEMU may take to answer.
const monitorLimit = 20 * time.Second

// monitor speaks the QEMU Machine Protocol (QEMU, docs/interop/qmp-spec.rst).
type monitor struct {
	conn net.Conn
	in   *bufio.Reader
}

func openMonitor(ctx context.Context, dir string) (*monitor, error) {
	// A socket's path has to be short; this one is, wherever dir is.
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), monitorFile))
	if err != nil {
		return nil, fmt.Errorf("QEMU's monitor %s: %w", filepath.Join(dir, monitorFile), err)
	}
	m := &monitor{conn: conn, in: bufio.NewReader(conn)}
	conn.SetDeadline(time.Now().Add(monitorLimit))
	if _, err := m.in.ReadBytes('\n'); err != nil { // its greeting
		conn.Close()
		return nil, err
	}
	if _, err := m.do("qmp_capabilities", nil); err != nil {
		conn.Close()
		return nil, err
	}
	return m, nil
}

// do runs a command and returns what it returns. Events that come in between are of
// no interest. It does not end with a context: the machine is not to stay stopped.
func (m *monitor) do(command string, args any) (json.RawMessage, error) {
	m.conn.SetDeadline(time.Now().Add(monitorLimit))
	request := map[string]any{"execute": command}
	if args != nil {
		request["arguments"] = args
	}
	if err := json.NewEncoder(m.conn).Encode(request); err != nil {
		return nil, err
	}
	for {
		line, err := m.in.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		var reply struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := json.Unmarshal(line, &reply); err != nil {
			return nil, err
		}
		switch {
		case reply.Error != nil:
			return nil, fmt.Errorf("%s: %s", command, reply.Error.Desc)
		case reply.Return != nil:
			return reply.Return, nil
		}
	}
}

// look stops the machine, since an emulated CPU knows its instruction pointer only
// between two blocks of code, and reads all registers.
func (m *monitor) look() (s []Sample, err error) {
	defer func() { // also if the answer to stop is lost
		_, cerr := m.do("cont", nil)
		err = errors.Join(err, cerr)
	}()
	if _, err := m.do("stop", nil); err != nil {
		return nil, err
	}
	text, err := m.human(0, "info registers -a")
	if err != nil {
		return nil, err
	}
	s, err = parseRegisters(text)
	for i := range s {
		if err == nil && !s[i].Halted && inXen(s[i].RIP) {
			s[i].Stack, err = m.words(i, s[i].RSP)
		}
	}
	return s, err
}

// words reads a CPU's memory at a virtual address.
func (m *monitor) words(cpu int, addr uint64) ([]uint64, error) {
	text, err := m.human(cpu, fmt.Sprintf("x /%dgx %#x", stackWords, addr))
	if err != nil {
		return nil, err
	}
	return parseWords(text), nil
}

// human has a CPU say what QEMU only tells people.
func (m *monitor) human(cpu int, command string) (text string, err error) {
	raw, err := m.do("human-monitor-command", map[string]any{"command-line": command, "cpu-index": cpu})
	if err != nil {
		return "", err
	}
	return text, json.Unmarshal(raw, &text)
}

// parseWords reads what the monitor's x says: an address, a colon, words. Of memory
// that cannot be read it is something else, and nothing comes back.
func parseWords(text string) []uint64 {
	var out []uint64
	for line := range strings.Lines(text) {
		_, words, _ := strings.Cut(line, ":")
		for _, w := range strings.Fields(words) {
			v, err := strconv.ParseUint(w, 0, 64)
			if err != nil {
				return nil
			}
			out = append(out, v)
		}
	}
	return out
}

var ripLine = regexp.MustCompile(`(?s)RSP=([0-9a-f]{16}).*?RIP=([0-9a-f]{16}) [^\n]*HLT=([01])`)

// parseRegisters reads what the monitor's info registers says of each CPU.
func parseRegisters(text string) ([]Sample, error) {
	var out []Sample
	for _, f := range ripLine.FindAllStringSubmatch(text, -1) {
		rsp, err := strconv.ParseUint(f[1], 16, 64)
		if err != nil {
			return nil, err
		}
		rip, err := strconv.ParseUint(f[2], 16, 64)
		if err != nil {
			return nil, err
		}
		out = append(out, Sample{RIP: rip, RSP: rsp, Halted: f[3] == "1"})
	}
	if len(out) == 0 {
		return nil, errors.New("the monitor shows no registers")
	}
	return out, nil
}

// Symbol is a name for the code from Addr to the next symbol.
type Symbol struct {
	Addr uint64
	Name string
}

// ReadSymbols reads lines "ADDRESS TYPE NAME", as of nm, /proc/kallsyms and
// /proc/xen/xensyms, and returns the code's in order. what is put before the names.
func ReadSymbols(r io.Reader, what string) ([]Symbol, error) {
	var out []Symbol
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 3 || !strings.ContainsAny(f[1], "tTwW") {
			continue
		}
		addr, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("lab: symbols: %q: %w", lines.Text(), err)
		}
		if addr != 0 {
			out = append(out, Symbol{addr, what + f[2]})
		}
	}
	return SortSymbols(out), lines.Err()
}

// XenSymbols are Xen's own functions, which dom0's kernel asks it for; their names begin
// with "xen: ".
func (l *Lab) XenSymbols(ctx context.Context) ([]Symbol, error) {
	const read = `mountpoint -q /proc/xen || { modprobe xenfs && mount -t xenfs none /proc/xen; } && cat /proc/xen/xensyms`
	text, err := l.output(ctx, read)
	if err != nil {
		return nil, fmt.Errorf("lab: Xen's symbols: %w", err)
	}
	return ReadSymbols(bytes.NewReader(text), "xen: ")
}

// SortSymbols puts symbols in order in place, and returns them.
func SortSymbols(all []Symbol) []Symbol {
	slices.SortStableFunc(all, func(a, b Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	return all
}

// Line is a part of a profile.
type Line struct {
	Name    string
	Samples int
}

// xenStart is the first address of Xen's (xen/include/asm-x86/config.h), and xenEnd
// that of its guests' kernels behind it.
const (
	xenStart = 0xffff800000000000
	xenEnd   = 0xffff880000000000
)

// Profile counts samples by symbol, the most first. Those without one are put
// together by where they are: a program, Xen, a kernel.
func Profile(samples []Sample, symbols []Symbol) []Line {
	counts := map[string]int{}
	for _, s := range samples {
		counts[nameOf(s, symbols)]++
	}
	var out []Line
	for name, n := range counts {
		out = append(out, Line{name, n})
	}
	slices.SortFunc(out, func(a, b Line) int {
		return cmp.Or(cmp.Compare(b.Samples, a.Samples), cmp.Compare(a.Name, b.Name))
	})
	return out
}

func inXen(addr uint64) bool { return addr >= xenStart && addr < xenEnd }

// trapEntries are Xen's entry points for traps with an error code, by the names they
// had and have (xen/arch/x86/x86_64/entry.S).
var trapEntries = map[string]bool{
	"xen: page_fault": true, "xen: entry_PF": true,
	"xen: general_protection": true, "xen: entry_GP": true,
}

// nameOf is where a CPU was. At the first instruction of a trap's entry, where an
// emulator accounts for all that the trap takes, it also has who caused it.
func nameOf(s Sample, symbols []Symbol) string {
	if s.Halted {
		return "(halted)"
	}
	name, exact := placeOf(s.RIP, symbols)
	if exact && trapEntries[name] && len(s.Stack) == stackWords {
		by, _ := placeOf(s.Stack[1], symbols)
		return name + ", by " + by
	}
	return name
}

// placeOf names an address, and tells whether it is the first one with that name.
func placeOf(addr uint64, symbols []Symbol) (name string, exact bool) {
	if addr < xenStart {
		return "(program)", false
	}
	i, found := slices.BinarySearchFunc(symbols, addr, func(y Symbol, addr uint64) int { return cmp.Compare(y.Addr, addr) })
	if !found {
		i--
	}
	if i >= 0 && inXen(symbols[i].Addr) == inXen(addr) {
		return symbols[i].Name, found
	}
	if inXen(addr) {
		return "(Xen)", false
	}
	return "(kernel)", false
}
