// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

func hello(magic, version uint32, started, sent uint64) []byte {
	b := make([]byte, agentapi.HelloSize)
	binary.LittleEndian.PutUint32(b[0:], magic)
	binary.LittleEndian.PutUint32(b[4:], version)
	binary.LittleEndian.PutUint64(b[8:], started)
	binary.LittleEndian.PutUint64(b[16:], sent)
	return b
}

type duplex struct {
	io.Reader
	bytes.Buffer
}

func (d *duplex) Read(b []byte) (int, error) { return d.Reader.Read(b) }

func TestGreet(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []byte
		want Hello
		err  error
	}{
		{"good", hello(0x48414358, 1, 5e8, 6e8), Hello{500 * time.Millisecond, 600 * time.Millisecond}, nil},
		{"other magic", hello(0x48414359, 1, 1, 2), Hello{}, ErrHello},
		{"newer agent", hello(0x48414358, 2, 1, 2), Hello{}, ErrHello},
		{"clock runs back", hello(0x48414358, 1, 2, 1), Hello{}, ErrHello},
		{"clock overflows", hello(0x48414358, 1, 1<<63, 1<<63), Hello{}, ErrHello},
		{"cut short", hello(0x48414358, 1, 1, 2)[:31], Hello{}, io.ErrUnexpectedEOF},
		{"nothing", nil, Hello{}, io.EOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := &duplex{Reader: bytes.NewReader(tc.in)}
			got, err := greet(d)
			if !errors.Is(err, tc.err) || got != tc.want {
				t.Fatalf("greet = %+v, %v; want %+v, %v", got, err, tc.want, tc.err)
			}
			if len(tc.in) == agentapi.HelloSize && !bytes.Equal(d.Bytes(), []byte{1, 0, 0, 0}) {
				t.Errorf("answer % x, want our version", d.Bytes())
			}
		})
	}
}

func TestStreamHeader(t *testing.T) {
	got := streamHeader(0x0102030405060708)
	want := [16]byte{'X', 'C', 'S', 'T', 1, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1}
	if got != want {
		t.Fatalf("% x, want % x", got, want)
	}
}
