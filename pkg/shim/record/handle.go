// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
)

// A domain's handle is the one thing that a shim can write on a domain, and it
// stays readable when the bundle is gone. So it says that the domain is ours and
// which process made it, which is what a sweep has to know:
//
//	bytes  0-3   "xctr"
//	bytes  4-8   random, with the version (8) and variant bits of RFC 9562
//	bytes  9-11  the maker's pid, big-endian; 0: unknown
//	bytes 12-15  low half of the maker's start time in clock ticks, big-endian
//
// A start time comes again in its low half after 497 days of uptime, and is then
// taken for that of a living process: the safe side.
const (
	handlePID   = 9
	handleStart = 12
)

var handleMagic = []byte("xctr")

// hostPIDs is the pid namespace in which every process has its pid on the host:
// the kernel gives the first one this fixed number.
const hostPIDs = "pid:[4026531836]"

// HostPIDs says whether this process sees the pids of the host.
func HostPIDs() bool {
	ns, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && ns == hostPIDs
}

// NewUUID makes the handle for a domain that maker makes.
func NewUUID(maker Process) (UUID, error) {
	if !HostPIDs() {
		// A pid that others would take for another process.
		maker = Process{}
	}
	return newUUID(maker)
}

func newUUID(maker Process) (u UUID, err error) {
	const maxPID = 1 << 24
	if maker.PID < 0 || maker.PID >= maxPID {
		return u, fmt.Errorf("make a domain's handle: pid %d", maker.PID)
	}
	copy(u[:], handleMagic)
	if _, err := rand.Read(u[len(handleMagic):handlePID]); err != nil {
		return u, fmt.Errorf("make a domain's handle: %w", err)
	}
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	binary.BigEndian.PutUint32(u[handlePID-1:], uint32(maker.PID)|uint32(u[handlePID-1])<<24)
	binary.BigEndian.PutUint32(u[handleStart:], uint32(maker.Start))
	return u, nil
}

// Ours tells whether u is a handle of NewUUID.
func (u UUID) Ours() bool {
	return bytes.HasPrefix(u[:], handleMagic) && u[6]&0xf0 == 0x80 && u[8]&0xc0 == 0x80
}

// MakerAlive tells whether the process runs that made the domain with the handle
// u, which is one of ours. A maker that cannot be known counts as alive.
func (u UUID) MakerAlive() bool {
	pid := int(binary.BigEndian.Uint32(u[handlePID-1:]) & 0xffffff)
	if pid == 0 {
		return true
	}
	state, start, err := stat(pid)
	if err != nil {
		return !gone(err)
	}
	return uint32(start) == binary.BigEndian.Uint32(u[handleStart:]) && !ended(state)
}
