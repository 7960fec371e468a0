// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/noxs"
)

const (
	maxMessage  = 64 << 10 // bytes of one message
	maxFiles    = 16       // descriptors beside one message
	maxText     = 512      // bytes of an error's text
	maxName     = 255      // bytes of an export's name
	sendTimeout = 5 * time.Second
)

// ErrProtocol is the identity of the error for a message that makes no sense.
var ErrProtocol = errors.New("back-end protocol broken")

// Operations. The comment names the fields of message that count.
const (
	opReply    = "reply"         // ID, Error, Errno, Stats
	opStart    = "start"         // Config, descriptors
	opExport   = "add-export"    // Name, ReadOnly, TTL, 1 descriptor
	opUnexport = "remove-export" // Name
	opDial     = "dial"          // Port, 1 descriptor
	opListen   = "listen"        // Port
	opUnlisten = "unlisten"      // Port
	opStats    = "stats"         //
	opDrain    = "drain"         //
	opAttach   = "attach"        // Stream, 1 descriptor; no reply
	opRefuse   = "refuse"        // Stream; no reply
	opAccept   = "accept"        // from the back-end: Port, Stream
	opState    = "guest-state"   // from the back-end: State
	opFailed   = "failed"        // from the back-end: Error; its last message
)

type message struct {
	Op       string        `json:"op"`
	ID       uint64        `json:"id,omitempty"`
	Config   *Config       `json:"config,omitempty"`
	Name     string        `json:"name,omitempty"`
	ReadOnly bool          `json:"readOnly,omitempty"`
	TTL      time.Duration `json:"ttl,omitempty"`
	Port     uint32        `json:"port,omitempty"`
	Stream   uint64        `json:"stream,omitempty"`
	State    uint32        `json:"state,omitempty"`
	Stats    *Stats        `json:"stats,omitempty"`
	Error    string        `json:"error,omitempty"`
	Errno    int           `json:"errno,omitempty"`
}

// Config is what a back-end process is told when it starts.
type Config struct {
	// Layout is what the device page was encoded from.
	Layout noxs.Layout `json:"layout"`
	// Wiring is for whoever turns the files into mappings and events in the
	// back-end process; this package does not look at it.
	Wiring json.RawMessage `json:"wiring,omitempty"`
}

// Export is a directory or regular file that the guest may see.
type Export struct {
	Name     string
	Dir      *os.File // an O_PATH descriptor; the sender keeps its copy
	ReadOnly bool
	CacheTTL time.Duration // how long the guest may keep names and attributes
}

// Stats is what a back-end process says of itself.
type Stats struct {
	Streams        int    `json:"streams"`
	BytesIn        uint64 `json:"bytesIn"` // by streams from the guest
	BytesOut       uint64 `json:"bytesOut"`
	PacketsIn      uint64 `json:"packetsIn"`
	PacketsOut     uint64 `json:"packetsOut"`
	ConsoleBytes   uint64 `json:"consoleBytes"`
	ConsoleDropped uint64 `json:"consoleDropped"`
	Descriptors    int    `json:"descriptors"` // of the file service
	ReadBytes      uint64 `json:"readBytes"`   // of files and disks, by the guest
	WriteBytes     uint64 `json:"writeBytes"`
	ReadOps        uint64 `json:"readOps"`
	WriteOps       uint64 `json:"writeOps"`
	Goroutines     int    `json:"goroutines"`
	HeapBytes      uint64 `json:"heapBytes"`
}

// Pair makes the two ends of a conversation: one for the shim, and one to be
// inherited by the back-end process. The caller owns both.
func Pair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("control: make a socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	ours, err := fileConn(os.NewFile(uintptr(fds[0]), "control"))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// Inherit takes over the back-end's end.
func Inherit(f *os.File) (*net.UnixConn, error) { return fileConn(f) }

// fileConn closes f.
func fileConn(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("control: use %s: %w", f.Name(), err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("control: %s is no unix socket", f.Name())
	}
	return u, nil
}

// wire sends and receives messages.
type wire struct {
	conn *net.UnixConn
	mu   sync.Mutex // one sender at a time
}

// send writes m with copies of files. It does not wait for a receiver longer
// than sendTimeout.
func (w *wire) send(m message, files ...*os.File) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("control: encode %s: %w", m.Op, err)
	}
	if len(b) > maxMessage || len(files) > maxFiles {
		return fmt.Errorf("control: send %s of %d bytes and %d files: %w", m.Op, len(b), len(files), unix.EMSGSIZE)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.conn.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return fmt.Errorf("control: send %s: %w", m.Op, err)
	}
	err = withFDs(files, nil, func(fds []int) error {
		var oob []byte
		if len(fds) > 0 {
			oob = unix.UnixRights(fds...)
		}
		_, _, err := w.conn.WriteMsgUnix(b, oob, nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("control: send %s: %w", m.Op, err)
	}
	return nil
}

// withFDs calls f with the descriptors of files, which stay open and as
// blocking or not as they are meanwhile.
func withFDs(files []*os.File, fds []int, f func([]int) error) error {
	if len(files) == 0 {
		return f(fds)
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := raw.Control(func(fd uintptr) { err = withFDs(files[1:], append(fds, int(fd)), f) })
	return errors.Join(ctlErr, err)
}

// receive reads a message into buf. With takeFiles it returns the descriptors
// that came along, which the caller owns; otherwise the kernel drops them. It
// returns io.EOF when the other end is closed.
func (w *wire) receive(buf []byte, takeFiles bool) (m message, files []*os.File, err error) {
	var oob []byte
	if takeFiles {
		oob = make([]byte, unix.CmsgSpace(4*maxFiles))
	}
	n, oobn, flags, _, err := w.conn.ReadMsgUnix(buf, oob)
	if err != nil || n == 0 {
		if err == nil || errors.Is(err, unix.ECONNRESET) {
			err = io.EOF
		}
		return m, nil, err
	}
	files, err = parseFiles(oob[:oobn])
	if err == nil && (flags&unix.MSG_TRUNC != 0 || takeFiles && flags&unix.MSG_CTRUNC != 0) {
		err = fmt.Errorf("control: %w: message is too long", ErrProtocol)
	}
	if err == nil {
		if jerr := json.Unmarshal(buf[:n], &m); jerr != nil {
			err = fmt.Errorf("control: %w: %v", ErrProtocol, jerr)
		}
	}
	if err != nil {
		closeFiles(files)
		return m, nil, err
	}
	return m, files, nil
}

func parseFiles(oob []byte) (files []*os.File, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control: %w: %v", ErrProtocol, err)
	}
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // not descriptors
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// setError puts err into a reply.
func (m *message) setError(err error) {
	if err == nil {
		return
	}
	m.Error = err.Error()
	if m.Error == "" {
		m.Error = "unknown error"
	}
	m.Error = m.Error[:min(len(m.Error), maxText)]
	var errno unix.Errno
	if errors.As(err, &errno) {
		m.Errno = int(errno)
	}
}

// remoteError is an error of the back-end. It matches the errno that the
// back-end named, if any.
type remoteError struct {
	text  string
	errno unix.Errno
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

// err returns the error that a message carries, made fit for a log.
func (m *message) err() error {
	if m.Error == "" && m.Errno == 0 {
		return nil
	}
	e := &remoteError{text: printable(m.Error)}
	if m.Errno > 0 && m.Errno < 4096 {
		e.errno = unix.Errno(m.Errno)
	}
	return e
}

func printable(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxText)], "?")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
