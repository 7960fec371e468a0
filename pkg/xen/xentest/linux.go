// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/xcontainer/xcontainer/pkg/noxs"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

// linuxKiB is the memory of a domain with a Linux kernel.
const linuxKiB = 128 << 10

// linuxCases run where there is a kernel that can run.
var linuxCases = []struct {
	name string
	run  func(*suite)
}{
	{"Linux boots to a line on hvc0", func(s *suite) { s.bootsTo(1) }},
	{"Linux boots with four virtual CPUs", func(s *suite) { s.bootsTo(4) }},
}

// bootsTo boots Linux and reads its console until the wanted line and the number
// of CPUs have been printed.
func (s *suite) bootsTo(vcpus uint32) {
	c := s.config("console=hvc0")
	c.Kernel, c.Initramfs, c.MemoryKiB, c.VCPUs = s.Linux, s.Initramfs, linuxKiB, vcpus
	// Without a back-end behind them, devices would only cost the kernel's
	// patience.
	c.Layout = noxs.Layout{PoolPages: noxs.Standard().PoolPages}
	d := s.create(c)
	b := s.attach(d)
	if err := d.Unpause(); err != nil {
		s.Fatal(err)
	}
	want := [][]byte{[]byte(s.Line), []byte("smp: Brought up 1 node, " + string('0'+rune(vcpus)) + " CPU")}
	log := s.drain(b, func(log []byte) bool {
		for _, w := range want {
			if !bytes.Contains(log, w) {
				return false
			}
		}
		return true
	})
	for _, w := range want {
		if !bytes.Contains(log, w) {
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
