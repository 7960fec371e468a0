// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// call is a system call as the filter sees it.
type call struct {
	arch uint32
	nr   uint32
	args [6]uint64
}

// machine runs a filter. The virtual machine of x/net reads packets, which are big
// endian, so the words of struct seccomp_data are written so.
type machine struct {
	*bpf.VM
	length int
}

func newMachine(t *testing.T, f *Filter) machine {
	t.Helper()
	var code []bpf.Instruction
	for p := f.Program; len(p) > 0; p = p[8:] {
		code = append(code, bpf.RawInstruction{
			Op: binary.LittleEndian.Uint16(p), Jt: p[2], Jf: p[3], K: binary.LittleEndian.Uint32(p[4:]),
		}.Disassemble())
	}
	vm, err := bpf.NewVM(code)
	if err != nil {
		t.Fatal(err)
	}
	return machine{vm, len(code)}
}

func (m machine) run(t *testing.T, c call) uint32 {
	t.Helper()
	var data [64]byte
	binary.BigEndian.PutUint32(data[0:], c.nr)
	binary.BigEndian.PutUint32(data[4:], c.arch)
	for i, a := range c.args {
		binary.BigEndian.PutUint32(data[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[20+8*i:], uint32(a>>32))
	}
	v, err := m.Run(data[:])
	if err != nil {
		t.Fatal(err)
	}
	return uint32(v)
}

func compile(t *testing.T, p *specs.LinuxSeccomp) machine {
	t.Helper()
	f, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return newMachine(t, f)
}

const (
	allow  = unix.SECCOMP_RET_ALLOW
	kill   = unix.SECCOMP_RET_KILL_THREAD
	eperm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

func native(name string, args ...uint64) call {
	c := call{arch: unix.AUDIT_ARCH_X86_64, nr: amd64()[name]}
	copy(c.args[:], args)
	return c
}

func on386(name string, args ...uint64) call {
	c := call{arch: unix.AUDIT_ARCH_I386, nr: i386()[name]}
	copy(c.args[:], args)
	return c
}

func allowing(names ...string) *specs.LinuxSeccomp {
	return &specs.LinuxSeccomp{
		DefaultAction: specs.ActErrno,
		Syscalls:      []specs.LinuxSyscall{{Names: names, Action: specs.ActAllow}},
	}
}

func TestActions(t *testing.T) {
	errno := func(n uint) *uint { return &n }
	for _, tt := range []struct {
		action specs.LinuxSeccompAction
		errno  *uint
		want   uint32
	}{
		{specs.ActKill, nil, 0},
		{specs.ActKillThread, nil, 0},
		{specs.ActKillProcess, nil, 0x80000000},
		{specs.ActTrap, nil, 0x00030000},
		{specs.ActErrno, nil, 0x00050001},
		{specs.ActErrno, errno(38), 0x00050026},
		{specs.ActErrno, errno(0), 0x00050000},
		{specs.ActTrace, nil, 0x7ff00001},
		{specs.ActTrace, errno(7), 0x7ff00007},
		{specs.ActLog, nil, 0x7ffc0000},
		{specs.ActAllow, nil, 0x7fff0000},
	} {
		// As a rule's action, and as the default one.
		other := specs.ActAllow
		if tt.action == other {
			other = specs.ActLog
		}
		m := compile(t, &specs.LinuxSeccomp{DefaultAction: other,
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: tt.action, ErrnoRet: tt.errno}}})
		if got := m.run(t, native("mkdir")); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.action, got, tt.want)
		}
		m = compile(t, &specs.LinuxSeccomp{DefaultAction: tt.action, DefaultErrnoRet: tt.errno})
		if got := m.run(t, native("mkdir")); got != tt.want {
			t.Errorf("default %s: %#x, want %#x", tt.action, got, tt.want)
		}
	}
}

func TestArchitectures(t *testing.T) {
	x32Call := native("read")
	x32Call.nr |= x32Bit
	x32Ioctl := native("read")
	x32Ioctl.nr = 514 | x32Bit
	cancelled := native("read")
	cancelled.nr = math.MaxUint32
	arm := native("read")
	arm.arch = unix.AUDIT_ARCH_AARCH64
	for _, tt := range []struct {
		name  string
		archs []specs.Arch
		call  call
		want  uint32
	}{
		{"native", nil, native("read"), allow},
		{"native though not listed", []specs.Arch{specs.ArchX86}, native("read"), allow},
		{"i386 not listed", []specs.Arch{specs.ArchX86_64}, on386("read"), kill},
		{"i386", []specs.Arch{specs.ArchX86}, on386("read"), allow},
		{"i386 default", []specs.Arch{specs.ArchX86}, on386("write"), enosys},
		{"x32 not listed", nil, x32Call, kill},
		{"x32", []specs.Arch{specs.ArchX32}, x32Call, allow},
		{"x32 with its own number", []specs.Arch{specs.ArchX32}, x32Ioctl, allow},
		{"another", []specs.Arch{specs.ArchAARCH64}, arm, kill},
		{"cancelled by a tracer", nil, cancelled, eperm},
	} {
		p := allowing("read", "ioctl")
		p.Architectures = tt.archs
		if tt.name == "i386 default" {
			p = allowing("read")
			p.Architectures = tt.archs
		}
		if got := compile(t, p).run(t, tt.call); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
}

// TestNewerCalls: what is newer than a profile that denies is not there.
func TestNewerCalls(t *testing.T) {
	p := allowing("read", "openat2", "no_such_call")
	p.Architectures = []specs.Arch{specs.ArchX86, specs.ArchX32}
	m := compile(t, p)
	newer := native("clone3")
	newer.nr = 1000
	newer32 := on386("read")
	newer32.nr = 1000
	x32Newer := newer
	x32Newer.nr |= x32Bit
	for c, want := range map[call]uint32{
		native("openat2"):             allow,
		native("openat"):              eperm,
		native("faccessat2"):          enosys, // 439, openat2 is 437
		newer:                         enosys,
		newer32:                       enosys,
		x32Newer:                      enosys,
		native("read", 1, 2, 3, 4, 5): allow,
	} {
		if got := m.run(t, c); got != want {
			t.Errorf("%+v: %#x, want %#x", c, got, want)
		}
	}
	for _, a := range []specs.LinuxSeccompAction{specs.ActAllow, specs.ActLog, specs.ActTrace} {
		p := allowing("read")
		p.DefaultAction = a
		want, err := action(a, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := compile(t, p).run(t, newer); got != want {
			t.Errorf("default %s: %#x", a, got)
		}
	}
}

// TestOperators compares with Go's own operators around every border.
func TestOperators(t *testing.T) {
	values := []uint64{0, 1, 2, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff, 0x100000000, 0x100000001,
		0x1ffffffff, 0x200000000, 0x8000000000000000, 0xfffffffffffffffe, math.MaxUint64}
	for _, op := range []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterThan,
		specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpMaskedEqual} {
		for _, v := range values {
			for _, two := range values {
				if op != specs.OpMaskedEqual && two != 0 {
					continue
				}
				for index := range uint(6) {
					p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86},
						Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActAllow,
							Args: []specs.LinuxSeccompArg{{Index: index, Value: v, ValueTwo: two, Op: op}}}}}
					m := compile(t, p)
					for _, a := range values {
						var c call
						c = native("mkdir")
						c.args[index] = a
						if got := m.run(t, c) == allow; got != holds(op, a, v, two) {
							t.Errorf("argument %d: %#x %s %#x (%#x) is %v", index, a, op, v, two, got)
						}
						if uint64(uint32(a)) != a {
							continue
						}
						c = on386("mkdir")
						c.args[index] = a
						if got := m.run(t, c) == allow; got != holds(op, a, v&math.MaxUint32, two&math.MaxUint32) {
							t.Errorf("i386, argument %d: %#x %s %#x (%#x) is %v", index, a, op, v, two, got)
						}
					}
				}
			}
		}
	}
}

func holds(op specs.LinuxSeccompOperator, a, v, two uint64) bool {
	switch op {
	case specs.OpEqualTo:
		return a == v
	case specs.OpNotEqual:
		return a != v
	case specs.OpGreaterThan:
		return a > v
	case specs.OpGreaterEqual:
		return a >= v
	case specs.OpLessThan:
		return a < v
	case specs.OpLessEqual:
		return a <= v
	default:
		return a&v == two
	}
}

func eq(index uint, value uint64) specs.LinuxSeccompArg {
	return specs.LinuxSeccompArg{Index: index, Value: value, Op: specs.OpEqualTo}
}

func TestRulesOfOneCall(t *testing.T) {
	const trap, log = unix.SECCOMP_RET_TRAP, unix.SECCOMP_RET_LOG
	rule := func(a specs.LinuxSeccompAction, args ...specs.LinuxSeccompArg) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: []string{"socket"}, Action: a, Args: args}
	}
	for _, tt := range []struct {
		name  string
		rules []specs.LinuxSyscall
		args  []uint64
		want  uint32
	}{
		{"all conditions", []specs.LinuxSyscall{rule(specs.ActAllow, eq(0, 1), eq(1, 2))}, []uint64{1, 2}, allow},
		{"one condition does not hold", []specs.LinuxSyscall{rule(specs.ActAllow, eq(0, 1), eq(1, 2))}, []uint64{1, 3}, eperm},
		{"another rule holds", []specs.LinuxSyscall{rule(specs.ActAllow, eq(0, 1), eq(1, 2)), rule(specs.ActTrap, eq(0, 3))}, []uint64{3, 2}, trap},
		{"two conditions on one argument: either", []specs.LinuxSyscall{rule(specs.ActAllow, eq(0, 1), eq(0, 2), eq(1, 9))}, []uint64{2, 7}, allow},
		{"two conditions on one argument: the other", []specs.LinuxSyscall{rule(specs.ActAllow, eq(0, 1), eq(0, 2), eq(1, 9))}, []uint64{5, 9}, allow},
		{"two conditions on one argument: none", []specs.LinuxSyscall{rule(specs.ActAllow, eq(0, 1), eq(0, 2), eq(1, 9))}, []uint64{5, 7}, eperm},
		{"the general rule covers, first", []specs.LinuxSyscall{rule(specs.ActTrap), rule(specs.ActAllow, eq(0, 1))}, []uint64{1}, trap},
		{"the general rule covers, last", []specs.LinuxSyscall{rule(specs.ActAllow, eq(0, 1)), rule(specs.ActTrap)}, []uint64{1}, trap},
		{"the shorter rule covers", []specs.LinuxSyscall{rule(specs.ActAllow, eq(1, 2), eq(0, 1)), rule(specs.ActTrap, eq(0, 1))}, []uint64{1, 2}, trap},
		{"the first of two alike", []specs.LinuxSyscall{rule(specs.ActLog, eq(0, 1)), rule(specs.ActTrap, eq(0, 1))}, []uint64{1}, log},
		{"the first of two that hold", []specs.LinuxSyscall{rule(specs.ActLog, eq(1, 1)), rule(specs.ActTrap, eq(0, 1))}, []uint64{1, 1}, log},
		{"the default's action again", []specs.LinuxSyscall{rule(specs.ActErrno), rule(specs.ActAllow, eq(0, 1))}, []uint64{1}, allow},
	} {
		m := compile(t, &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: tt.rules})
		if got := m.run(t, native("socket", tt.args...)); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
}

// TestCarriedCalls: i386 makes these directly or by one call for many.
func TestCarriedCalls(t *testing.T) {
	p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86},
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"socket"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{eq(0, 40)}},
			{Names: []string{"shmget", "recv"}, Action: specs.ActErrno},
		}}
	m := compile(t, p)
	for c, want := range map[call]uint32{
		on386("socket", 40):     eperm,
		on386("socket", 2):      allow,
		on386("socketcall", 1):  eperm, // whatever the domain, which is in memory
		on386("socketcall", 10): eperm,
		on386("socketcall", 2):  allow,
		on386("ipc", 23):        eperm,
		on386("shmget"):         eperm,
		on386("ipc", 1):         allow,
		native("socket", 40):    eperm,
		native("socket", 1):     allow,
		native("shmget"):        eperm,
	} {
		if got := m.run(t, c); got != want {
			t.Errorf("%+v: %#x, want %#x", c, got, want)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, tt := range []struct {
		flags []specs.LinuxSeccompFlag
		want  uint32
	}{
		{nil, unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW},
		{[]specs.LinuxSeccompFlag{}, 0},
		{[]specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, "SECCOMP_FILTER_FLAG_TSYNC"}, unix.SECCOMP_FILTER_FLAG_LOG},
	} {
		f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: tt.flags})
		if err != nil || f.Flags != tt.want {
			t.Errorf("%q: %v, %v", tt.flags, f, err)
		}
	}
	if f, err := Compile(nil); f != nil || err != nil {
		t.Errorf("nothing: %v, %v", f, err)
	}
	if f, err := Compile(&specs.LinuxSeccomp{}); f != nil || err != nil {
		t.Errorf("empty: %v, %v", f, err)
	}
}

func TestRefusals(t *testing.T) {
	n := uint(1)
	large := uint(4096)
	one := func(c specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{c}}
	}
	mkdir := []string{"mkdir"}
	var many []specs.LinuxSyscall
	for i := range 2000 {
		many = append(many, specs.LinuxSyscall{Names: mkdir, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{eq(0, uint64(i))}})
	}
	for _, tt := range []struct {
		p    *specs.LinuxSeccomp
		kind error
		want string
	}{
		{one(specs.LinuxSyscall{Names: mkdir, Action: specs.ActNotify}), ErrUnsupported,
			"seccomp profile: the action SCMP_ACT_NOTIFY is not supported by X-Containers"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/x"}, ErrUnsupported,
			"seccomp profile: listenerPath is not supported by X-Containers"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}}, ErrUnsupported,
			"seccomp profile: the flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is not supported by X-Containers"},
		{&specs.LinuxSeccomp{DefaultAction: "X"}, ErrInvalid, `seccomp profile: action "X" is unknown`},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, DefaultErrnoRet: &n}, ErrInvalid,
			"seccomp profile: the action SCMP_ACT_ALLOW takes no errnoRet"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &large}, ErrInvalid,
			"seccomp profile: errnoRet 4096 is more than 4095"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"Z80"}}, ErrInvalid,
			`seccomp profile: architecture "Z80" is unknown`},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"F"}}, ErrInvalid,
			`seccomp profile: flag "F" is unknown`},
		{one(specs.LinuxSyscall{Names: mkdir, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{eq(6, 0)}}), ErrInvalid,
			"seccomp profile: a system call has no argument 6"},
		{one(specs.LinuxSyscall{Names: mkdir, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: "?"}}}), ErrInvalid,
			`seccomp profile: operator "?" is unknown`},
		{one(specs.LinuxSyscall{Names: []string{""}, Action: specs.ActErrno}), ErrInvalid, "seccomp profile: a rule has an empty name"},
		{one(specs.LinuxSyscall{Names: slices.Repeat([]string{"x"}, 1<<17), Action: specs.ActErrno}), ErrInvalid,
			"seccomp profile: more than 16384 rules"},
		{&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: many}, ErrInvalid,
			"seccomp profile: a program of 10015 instructions, where the kernel takes 4096; give it fewer conditions"},
	} {
		f, err := Compile(tt.p)
		if !errors.Is(err, tt.kind) || err.Error() != tt.want {
			t.Errorf("got  %v, %v\nwant %s", f, err, tt.want)
		}
	}
}

// profiles are what containerd 2.3.7 gives a container: one with no capabilities,
// and one with some that open system calls (contrib/seccomp there).
func profiles(t *testing.T) map[string]*specs.LinuxSeccomp {
	t.Helper()
	data, err := os.ReadFile("testdata/containerd-2.3.7.json")
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]*specs.LinuxSeccomp
	if err := json.Unmarshal(data, &out); err != nil || len(out) != 2 {
		t.Fatal(len(out), err)
	}
	return out
}

// TestDefaultProfile asks about every system call of every architecture, and
// compares with a reading of the profile itself.
func TestDefaultProfile(t *testing.T) {
	for which, p := range profiles(t) {
		m := compile(t, p)
		t.Logf("%s: %d instructions", which, m.length)
		if m.length > 1000 {
			t.Errorf("%d instructions", m.length)
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		interesting := []uint64{0, 1, 2, 8, 40, 0x20000, 0x20008, 0x7e020000, 0x10000, 0xffffffff}
		for _, a := range []struct {
			audit uint32
			t     table
			via   map[string]carried
		}{{unix.AUDIT_ARCH_X86_64, amd64(), nil}, {unix.AUDIT_ARCH_I386, i386(), i386Carried}, {unix.AUDIT_ARCH_X86_64, x32(), nil}} {
			for name, nr := range a.t {
				for range 20 {
					c := call{arch: a.audit, nr: nr}
					for i := range c.args {
						c.args[i] = interesting[rnd.IntN(len(interesting))]
					}
					if got, want := m.run(t, c), reading(p, a.t, a.via, name, c); got != want {
						t.Fatalf("%s %+v: %#x, want %#x", name, c, got, want)
					}
				}
			}
		}
	}
}

// reading is what a profile whose rules all allow, but for those without
// conditions, says of a call. It knows nothing of programs.
func reading(p *specs.LinuxSeccomp, tab table, via map[string]carried, name string, c call) uint32 {
	newest := uint32(0)
	result := eperm
	unconditional := false
	for _, r := range p.Syscalls {
		act, err := action(r.Action, r.ErrnoRet)
		if err != nil {
			panic(err)
		}
		for _, n := range r.Names {
			if nr, ok := tab[n]; ok {
				newest = max(newest, nr)
			}
			direct := n == name
			if v, ok := via[n]; ok && v.by == name && c.args[0] == v.call {
				direct = true
			}
			if !direct || unconditional {
				continue
			}
			ok := true
			for _, arg := range r.Args {
				if n != name && arg.Index == 0 {
					continue
				}
				ok = ok && holds(arg.Op, c.args[arg.Index], arg.Value, arg.ValueTwo)
			}
			if ok && result == eperm {
				result = act
			}
			if n == name && len(r.Args) == 0 {
				result, unconditional = act, true
			}
		}
	}
	if c.nr > newest {
		return enosys
	}
	return result
}

// TestTables looks at calls that everybody knows.
func TestTables(t *testing.T) {
	for _, tt := range []struct {
		t    table
		name string
		want uint32
	}{
		{amd64(), "read", 0}, {amd64(), "execve", 59}, {amd64(), "clone3", 435}, {amd64(), "openat2", 437},
		{i386(), "read", 3}, {i386(), "socketcall", 102}, {i386(), "ipc", 117}, {i386(), "clone3", 435}, {i386(), "_newselect", 142},
		{x32(), "read", x32Bit}, {x32(), "rt_sigaction", x32Bit | 512}, {x32(), "execve", x32Bit | 520}, {x32(), "pwritev2", x32Bit | 547},
	} {
		if got, ok := tt.t[tt.name]; !ok || got != tt.want {
			t.Errorf("%s is %d, want %d", tt.name, got, tt.want)
		}
	}
	for name, c := range i386Carried {
		if _, ok := i386()[c.by]; !ok {
			t.Errorf("%s is carried by %s", name, c.by)
		}
	}
	for _, name := range x32Own {
		if _, ok := amd64()[name]; !ok {
			t.Errorf("x32 has %s", name)
		}
	}
}

func FuzzCompile(f *testing.F) {
	f.Add("mkdir", "SCMP_ACT_ERRNO", "SCMP_CMP_EQ", uint64(1), uint64(2), uint(0), true)
	f.Fuzz(func(t *testing.T, name, act, op string, v, two uint64, index uint, i386 bool) {
		p := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
		if i386 {
			p.Architectures = []specs.Arch{specs.ArchX86, specs.ArchX32}
		}
		for i := range uint64(3) {
			p.Syscalls = append(p.Syscalls, specs.LinuxSyscall{
				Names: []string{name, fmt.Sprint(name, i)}, Action: specs.LinuxSeccompAction(act),
				Args: []specs.LinuxSeccompArg{{Index: index, Value: v + i, ValueTwo: two, Op: specs.LinuxSeccompOperator(op)}, eq(uint(i), v)},
			})
		}
		out, err := Compile(p)
		if err != nil {
			return
		}
		m := newMachine(t, out)
		for _, nr := range amd64() {
			m.run(t, call{arch: unix.AUDIT_ARCH_X86_64, nr: nr, args: [6]uint64{v, two}})
			m.run(t, call{arch: unix.AUDIT_ARCH_I386, nr: nr})
		}
	})
}
