// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
)

// Type says what a frame between the agent and a stage carries.
type Type byte

// Frame types. Config and Start go to the stage, the others come from it.
const (
	Config   Type = 'C' // agentapi.Container (init) or agentapi.Process (exec)
	Start    Type = 'S' // the waiting init may exec
	Terminal Type = 'T' // carries the master of the new pty as SCM_RIGHTS
	Ready    Type = 'R' // init waits for Start
	Exec     Type = 'X' // the next thing is execve; end of stream means success
	Failed   Type = 'E' // an Error; the stage exits
)

// headerLen is the length of what precedes each payload: 4 bytes of payload
// length, little endian, and the type.
const headerLen = 5

// maxPayload bounds a frame, in bytes. It is above ttrpc's bound on a message,
// so that whatever the agent has accepted fits.
const maxPayload = 8 << 20

// Error is a failure that the stage reports: a gRPC status code and the
// sentence that the user sees.
type Error struct {
	Code codes.Code
	Text string
}

func (e *Error) Error() string { return e.Text }

// failf makes an Error with the given code.
func failf(code codes.Code, format string, args ...any) *Error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}

// WriteFrame writes one frame.
func WriteFrame(w io.Writer, t Type, payload []byte) error {
	_, err := w.Write(appendFrame(nil, t, payload))
	return err
}

func appendFrame(b []byte, t Type, payload []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, byte(t))
	return append(b, payload...)
}

// ReadFrame reads one frame. At the end of the stream before its first byte the
// error is io.EOF.
func ReadFrame(r io.Reader) (Type, []byte, error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(h[:4])
	if n > maxPayload {
		return 0, nil, fmt.Errorf("stage: frame of %d bytes, at most %d", n, maxPayload)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, fmt.Errorf("stage: frame cut short: %w", err)
	}
	return Type(h[4]), payload, nil
}

// encodeError is the payload of a Failed frame: the code in one byte and the
// text.
func encodeError(e *Error) []byte {
	return append([]byte{byte(e.Code)}, e.Text...)
}

// DecodeError reads the payload of a Failed frame.
func DecodeError(payload []byte) *Error {
	if len(payload) == 0 {
		return failf(codes.Internal, "stage failed without a reason")
	}
	return &Error{Code: codes.Code(payload[0]), Text: string(payload[1:])}
}
