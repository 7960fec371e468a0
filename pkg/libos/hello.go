// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// ErrHello is matched by every error about a greeting that was not the agent's.
var ErrHello = errors.New("not the agent's hello")

// Hello is the agent's greeting (docs/agent.md, 1).
type Hello struct {
	Started time.Duration // guest's boot clock when the agent started
	Sent    time.Duration // and when it wrote the hello
}

// decodeHello reads b, which the guest wrote.
func decodeHello(b [agentapi.HelloSize]byte) (Hello, error) {
	le := binary.LittleEndian
	if m := le.Uint32(b[0:]); m != agentapi.HelloMagic {
		return Hello{}, fmt.Errorf("%w: magic %#x", ErrHello, m)
	}
	if v := le.Uint32(b[4:]); v != agentapi.Version {
		return Hello{}, fmt.Errorf("%w: it speaks protocol version %d, this shim %d; build shim and initramfs from one release",
			ErrHello, v, agentapi.Version)
	}
	h := Hello{Started: time.Duration(le.Uint64(b[8:])), Sent: time.Duration(le.Uint64(b[16:]))}
	if h.Started < 0 || h.Sent < h.Started {
		return Hello{}, fmt.Errorf("%w: its clock ran from %v to %v", ErrHello, h.Started, h.Sent)
	}
	return h, nil
}

// greet reads the hello from c and answers it.
func greet(c io.ReadWriter) (Hello, error) {
	var b [agentapi.HelloSize]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return Hello{}, fmt.Errorf("read the agent's hello: %w", err)
	}
	h, err := decodeHello(b)
	var answer [4]byte
	binary.LittleEndian.PutUint32(answer[:], agentapi.Version)
	if _, werr := c.Write(answer[:]); err == nil && werr != nil {
		err = fmt.Errorf("answer the agent's hello: %w", werr)
	}
	return h, err
}

// streamHeader is what opens a stream connection (docs/agent.md, 3).
func streamHeader(number uint64) [agentapi.StreamSize]byte {
	var b [agentapi.StreamSize]byte
	binary.LittleEndian.PutUint32(b[0:], agentapi.StreamMagic)
	binary.LittleEndian.PutUint32(b[4:], agentapi.Version)
	binary.LittleEndian.PutUint64(b[8:], number)
	return b
}
