// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/xcontainer/xcontainer/pkg/noxs"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/pv"
)

// linuxKiB is the memory of a domain with a Linux kernel.
const linuxKiB = 128 << 10

// linuxCases run where there is a kernel that can run, upCases where there is one
// for a single virtual CPU.
var (
	linuxCases = []testCase{
		{"Linux boots to a line on hvc0", func(s *suite) { s.boots(s.Linux, 1, broughtUp(1)) }},
		{"Linux boots with four virtual CPUs", func(s *suite) { s.boots(s.Linux, 4, broughtUp(4)) }},
	}
	upCases = []testCase{
		{"Linux for one virtual CPU boots", func(s *suite) { s.boots(s.LinuxUP, 1) }},
	}
)

// broughtUp is what a kernel for several CPUs says when vcpus of them run.
func broughtUp(vcpus int) string { return fmt.Sprintf("smp: Brought up 1 node, %d CPU", vcpus) }

// boots boots Linux and reads its console until s.Line and what else is wanted
// have been printed.
func (s *suite) boots(kernel *pv.Kernel, vcpus uint32, more ...string) {
	c := s.config("console=hvc0")
	c.Kernel, c.Initramfs, c.MemoryKiB, c.VCPUs = kernel, s.Initramfs, linuxKiB, vcpus
	// Without a back-end behind them, devices would only cost the kernel's
	// patience.
	c.Layout = noxs.Layout{PoolPages: noxs.Standard().PoolPages}
	d := s.create(c)
	b := s.attach(d)
	if err := d.Unpause(); err != nil {
		s.Fatal(err)
	}
	want := append([]string{s.Line}, more...)
	log := s.drain(b, func(log []byte) bool {
		for _, w := range want {
			if !bytes.Contains(log, []byte(w)) {
				return false
			}
		}
		return true
	})
	for _, w := range want {
		if !bytes.Contains(log, []byte(w)) {
			s.Errorf("console never said %q; it said:\n%s", w, log)
		}
	}
	first, _, _ := bytes.Cut(log, []byte("\n"))
	s.Logf("%s", first)
}

// drain empties the console ring until enough says so or patience ends.
func (s *suite) drain(b *backend, enough func([]byte) bool) []byte {
	s.Helper()
	if err := b.SetDeadline(time.Now().Add(patience)); err != nil {
		s.Fatal(err)
	}
	var log []byte
	ports := make([]abi.Port, 16)
	for !enough(log) {
		n, err := b.Pending(ports)
		if err != nil {
			s.Logf("console: %v", err)
			return log
		}
		log = append(log, take(b.console)...)
		if err := b.Notify(b.Ports.Console); err != nil {
			s.Fatal(err)
		}
		if err := b.Unmask(ports[:n]...); err != nil {
			s.Fatal(err)
		}
	}
	return log
}

// take reads what is in the ring. The guest under test is trusted here.
func take(ring []byte) []byte {
	le := binary.LittleEndian
	cons, prod := le.Uint32(ring[abi.ConsoleOutCons:]), le.Uint32(ring[abi.ConsoleOutProd:])
	var out []byte
	for n := prod - cons; n > 0 && n <= abi.ConsoleOutSize; n-- {
		out = append(out, ring[abi.ConsoleOut+cons%abi.ConsoleOutSize])
		cons++
	}
	le.PutUint32(ring[abi.ConsoleOutCons:], cons)
	return out
}
