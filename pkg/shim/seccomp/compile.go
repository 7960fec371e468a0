// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Filter is what seccomp(2) takes.
type Filter struct {
	// Program is an array of struct sock_filter, 8 bytes each, little endian.
	Program []byte
	Flags   uint32 // SECCOMP_FILTER_FLAG_*
}

// maxProgram is the kernel's BPF_MAXINSNS.
const maxProgram = 4096

// known are the architectures of the specification. A guest on x86-64 makes calls
// of the first three only.
var known = []specs.Arch{
	specs.ArchX86_64, specs.ArchX86, specs.ArchX32,
	specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32,
	specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64,
	specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64,
	specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
}

// Compile compiles a profile; a nil filter without an error means that the profile
// says nothing. Errors have one of this package's identities.
func Compile(p *specs.LinuxSeccomp) (*Filter, error) {
	if p == nil || p.DefaultAction == "" && len(p.Syscalls) == 0 {
		return nil, nil
	}
	if p.ListenerPath != "" || p.ListenerMetadata != "" {
		return nil, unsupported("listenerPath")
	}
	def, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	fl, err := flags(p)
	if err != nil {
		return nil, err
	}
	for _, a := range p.Architectures {
		if !slices.Contains(known, a) {
			return nil, invalid("architecture %q is unknown", a)
		}
	}
	list, names, err := rules(p, def)
	if err != nil {
		return nil, err
	}
	has := func(a specs.Arch) bool { return slices.Contains(p.Architectures, a) }

	native := section{audit: unix.AUDIT_ARCH_X86_64}
	native.ranges = ranges(amd64(), list, names, def, 0, x32Bit-1, nil)
	if has(specs.ArchX32) {
		native.ranges = append(native.ranges, ranges(x32(), list, names, def, x32Bit, math.MaxUint32, nil)...)
	} else {
		// -1 is a call that a tracer has cancelled.
		native.ranges = append(native.ranges, span{x32Bit, leaf{last: unix.SECCOMP_RET_KILL_THREAD}},
			span{math.MaxUint32, leaf{last: def}})
	}
	sections := []section{native}
	if has(specs.ArchX86) {
		s := section{audit: unix.AUDIT_ARCH_I386, narrow: true}
		s.ranges = ranges(i386(), list, names, def, 0, math.MaxUint32, i386Carried)
		sections = append(sections, s)
	}
	code := program(sections)
	if len(code) > maxProgram {
		return nil, invalid("a program of %d instructions, where the kernel takes %d; give it fewer conditions", len(code), maxProgram)
	}
	out := make([]byte, 0, 8*len(code))
	for _, in := range code {
		out = binary.LittleEndian.AppendUint16(out, in.Op)
		out = append(out, in.Jt, in.Jf)
		out = binary.LittleEndian.AppendUint32(out, in.K)
	}
	return &Filter{out, fl}, nil
}

// leaf is what becomes of a call: the rules in order, then last.
type leaf struct {
	rules []rule
	last  uint32
}

// span is all numbers from one on, up to the next span.
type span struct {
	from uint32
	leaf leaf
}

// section is the calls of one architecture.
type section struct {
	audit  uint32 // AUDIT_ARCH_*
	narrow bool   // arguments have 32 bits
	ranges []span // the first begins with 0; neighbours differ
}

// ranges turns the rules for an architecture into spans from first to last.
func ranges(t table, list []named, names []string, def uint32, first, last uint32, via map[string]carried) []span {
	calls := map[uint32][]rule{}
	for _, n := range list {
		if nr, ok := t[n.name]; ok {
			calls[nr] = add(calls[nr], n.rule)
		}
		if c, ok := via[n.name]; ok {
			nr := t[c.by]
			calls[nr] = add(calls[nr], rule{through(c, n.conditions), n.action})
		}
	}
	var out []span
	put := func(from uint32, l leaf) {
		if n := len(out); n > 0 {
			if prev := out[n-1].leaf; len(l.rules) == 0 && len(prev.rules) == 0 && l.last == prev.last {
				return
			}
		}
		out = append(out, span{from, l})
	}
	next := uint64(first) // no span holds it yet
	for _, nr := range slices.Sorted(maps.Keys(calls)) {
		if uint64(nr) > next {
			put(uint32(next), leaf{last: def})
		}
		l := leaf{last: def}
		for _, r := range calls[nr] {
			if len(r.conditions) == 0 {
				l.last = r.action
				break
			}
			l.rules = append(l.rules, r)
		}
		put(nr, l)
		next = uint64(nr) + 1
	}
	if top, ok := highest(t, names, via); ok && denies(def) {
		if uint64(top) >= next {
			put(uint32(next), leaf{last: def})
			next = uint64(top) + 1
		}
		def = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	}
	if next <= uint64(last) {
		put(uint32(next), leaf{last: def})
	}
	return out
}

// through are the conditions of a call that another one carries: its own first
// argument is a pointer to them there, so nothing is known of that one.
func through(c carried, conditions []condition) []condition {
	out := []condition{{arg: 0, op: specs.OpEqualTo, value: c.call}}
	for _, cond := range conditions {
		if cond.arg != 0 {
			out = append(out, cond)
		}
	}
	return out
}

// highest is the highest number that the profile names.
func highest(t table, names []string, via map[string]carried) (top uint32, ok bool) {
	for _, name := range names {
		nr, found := t[name]
		if c, carried := via[name]; !found && carried {
			nr, found = t[c.by], true
		}
		if found {
			top, ok = max(top, nr), true
		}
	}
	return top, ok
}

// denies tells whether an action keeps calls from being made; a tracer decides for
// itself about those that it does not know.
func denies(action uint32) bool {
	switch action & unix.SECCOMP_RET_ACTION_FULL {
	case unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_LOG, unix.SECCOMP_RET_TRACE:
		return false
	default:
		return true
	}
}
