// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"math"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// code is instructions whose jumps stay within it. It may stand anywhere.
type code []bpf.RawInstruction

// Offsets in struct seccomp_data.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

func load(off uint32) bpf.RawInstruction {
	return bpf.RawInstruction{Op: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}

func ret(action uint32) bpf.RawInstruction {
	return bpf.RawInstruction{Op: unix.BPF_RET | unix.BPF_K, K: action}
}

// jump compares the loaded value with k and leaves out jt or jf instructions.
func jump(op uint16, k uint32, jt, jf uint8) bpf.RawInstruction {
	return bpf.RawInstruction{Op: unix.BPF_JMP | op | unix.BPF_K, Jt: jt, Jf: jf, K: k}
}

func skip(n int) bpf.RawInstruction {
	return bpf.RawInstruction{Op: unix.BPF_JMP | unix.BPF_JA, K: uint32(n)}
}

func program(sections []section) code {
	c := code{load(offArch)}
	for _, s := range sections {
		body := append(code{load(offNumber)}, search(s.ranges, s.narrow)...)
		c = append(c, jump(unix.BPF_JEQ, s.audit, 1, 0), skip(len(body)))
		c = append(c, body...)
	}
	return append(c, ret(unix.SECCOMP_RET_KILL_THREAD))
}

// search finds the span of the loaded number. The code always ends with an answer.
func search(ranges []span, narrow bool) code {
	if len(ranges) == 1 {
		return decide(ranges[0].leaf, narrow)
	}
	mid := len(ranges) / 2
	below, above := search(ranges[:mid], narrow), search(ranges[mid:], narrow)
	var c code
	if n := len(below); n <= math.MaxUint8 {
		c = code{jump(unix.BPF_JGE, ranges[mid].from, uint8(n), 0)}
	} else {
		c = code{jump(unix.BPF_JGE, ranges[mid].from, 0, 1), skip(n)}
	}
	c = append(c, below...)
	return append(c, above...)
}

// decide gives the answer for one call.
func decide(l leaf, narrow bool) code {
	var c code
	for _, r := range l.rules {
		c = append(c, match(r, narrow)...)
	}
	return append(c, ret(l.last))
}

// fail stands for a jump to the end of a rule until that is known. No real jump
// within a rule is that long.
const fail = math.MaxUint8

// match answers if the rule's conditions hold, and else goes on after itself.
func match(r rule, narrow bool) code {
	var c code
	for _, cond := range r.conditions {
		c = append(c, test(cond, narrow)...)
	}
	c = append(c, ret(r.action))
	for i := range c {
		rest := uint8(len(c) - i - 1)
		if c[i].Jt == fail {
			c[i].Jt = rest
		}
		if c[i].Jf == fail {
			c[i].Jf = rest
		}
	}
	return c
}

// test goes on after itself if the condition holds.
func test(c condition, narrow bool) code {
	off := offArgs + 8*c.arg
	hi, lo := uint32(c.value>>32), uint32(c.value)
	loadHi, loadLo := load(off+4), load(off)
	var low bpf.RawInstruction
	switch c.op {
	case specs.OpMaskedEqual:
		return append(masked(loadHi, uint32(c.mask>>32), hi, narrow), masked(loadLo, uint32(c.mask), lo, false)...)
	case specs.OpEqualTo:
		low = jump(unix.BPF_JEQ, lo, 0, fail)
	case specs.OpNotEqual:
		low = jump(unix.BPF_JEQ, lo, fail, 0)
	case specs.OpGreaterThan:
		low = jump(unix.BPF_JGT, lo, 0, fail)
	case specs.OpGreaterEqual:
		low = jump(unix.BPF_JGE, lo, 0, fail)
	case specs.OpLessThan:
		low = jump(unix.BPF_JGE, lo, fail, 0)
	case specs.OpLessEqual:
		low = jump(unix.BPF_JGT, lo, fail, 0)
	}
	if narrow {
		return code{loadLo, low}
	}
	switch c.op {
	case specs.OpEqualTo:
		return code{loadHi, jump(unix.BPF_JEQ, hi, 0, fail), loadLo, low}
	case specs.OpNotEqual:
		return code{loadHi, jump(unix.BPF_JEQ, hi, 0, 2), loadLo, low}
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		return code{loadHi, jump(unix.BPF_JGT, hi, 3, 0), jump(unix.BPF_JEQ, hi, 0, fail), loadLo, low}
	default:
		return code{loadHi, jump(unix.BPF_JGT, hi, fail, 0), jump(unix.BPF_JEQ, hi, 0, 2), loadLo, low}
	}
}

// masked compares the bits of mask of one half of an argument.
func masked(load bpf.RawInstruction, mask, value uint32, narrow bool) code {
	if narrow || mask == 0 && value == 0 {
		return nil
	}
	and := bpf.RawInstruction{Op: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask}
	return code{load, and, jump(unix.BPF_JEQ, value, 0, fail)}
}
