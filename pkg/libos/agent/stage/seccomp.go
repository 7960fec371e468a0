// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// filterStep is the size of struct sock_filter in bytes.
const filterStep = 8

// seccompFlags are those of seccomp(2) that a filter may have. One that a
// listener would have to answer has nobody here to do so.
const seccompFlags = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_LOG | unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW

// CheckSeccomp refuses what cannot be a process's filter. What the instructions
// do is for the kernel to judge.
func CheckSeccomp(p *agentapi.Process) error {
	switch n := len(p.GetSeccomp()); {
	case n%filterStep != 0:
		return failf(codes.InvalidArgument, "seccomp filter: %d bytes are no whole number of instructions", n)
	case n/filterStep > unix.BPF_MAXINSNS:
		return failf(codes.InvalidArgument, "seccomp filter: %d instructions are more than the %d that a kernel takes", n/filterStep, unix.BPF_MAXINSNS)
	case p.GetSeccompFlags()&^seccompFlags != 0:
		return failf(codes.InvalidArgument, "seccomp filter: unknown flags %#x", p.GetSeccompFlags()&^seccompFlags)
	}
	return nil
}

// filter is a process's seccomp filter as the kernel takes it.
type filter struct {
	steps []unix.SockFilter
	flags uint32
}

// newFilter is nil for a process without a filter. It is for one thread, the one
// that execs: the others end with that, so the flag to synchronise them is left
// out.
func newFilter(p *agentapi.Process) (*filter, error) {
	if len(p.GetSeccomp()) == 0 {
		return nil, nil
	}
	if err := CheckSeccomp(p); err != nil {
		return nil, err
	}
	f := &filter{
		steps: make([]unix.SockFilter, len(p.GetSeccomp())/filterStep),
		flags: p.GetSeccompFlags() &^ unix.SECCOMP_FILTER_FLAG_TSYNC,
	}
	for i := range f.steps {
		b := p.GetSeccomp()[i*filterStep:]
		f.steps[i] = unix.SockFilter{
			Code: binary.LittleEndian.Uint16(b),
			Jt:   b[2],
			Jf:   b[3],
			K:    binary.LittleEndian.Uint32(b[4:]),
		}
	}
	return f, nil
}

// wrap makes the kernel's answer to the filter an error.
func (f *filter) wrap(err error) error {
	return failf(codes.InvalidArgument, "install the seccomp filter of %d instructions: %v", len(f.steps), err)
}
