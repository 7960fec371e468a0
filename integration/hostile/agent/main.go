// SPDX-License-Identifier: Apache-2.0

// The hostile agent is the first process of a guest that means harm: it runs on
// the ordinary kernel in the place of the agent and answers the shim with
// whatever its mode says. The mode is what follows the program in its file.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/mdlayher/vsock"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// modeMark stands between the program and the name of the mode.
const modeMark = "\x00hostile-mode="

func main() {
	mode, err := readMode("/init")
	if err == nil {
		fmt.Println("hostile: mode", mode)
		err = run(mode)
	}
	fmt.Println("hostile: end:", err)
	// What the shim does with a guest that says nothing more is part of the test.
	for {
		time.Sleep(time.Hour)
	}
}

func readMode(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	i := bytes.LastIndex(b, []byte(modeMark))
	if i < 0 {
		return "", errors.New("no mode in the program's file")
	}
	return string(b[i+len(modeMark):]), nil
}

func run(mode string) error {
	calls, err := vsock.ListenContextID(0xffffffff, agentapi.PortAgent, nil)
	if err != nil {
		return err
	}
	streams, err := vsock.ListenContextID(0xffffffff, agentapi.PortStream, nil)
	if err != nil {
		return err
	}
	host, err := dial(agentapi.PortHello)
	if err != nil {
		return err
	}
	if h, ok := strings.CutPrefix(mode, "hello-"); ok {
		return badHello(host, h)
	}
	if err := greet(host, agentapi.Version); err != nil {
		return err
	}
	switch mode {
	case "garbage":
		return each(calls, garbage)
	case "frames":
		return each(calls, frames)
	case "floods":
		go floods()
		return serve(calls, streams, &agent{})
	case "lies":
		return serve(calls, streams, &agent{lies: true})
	case "mute":
		return serve(calls, streams, &agent{mute: true})
	}
	return fmt.Errorf("no mode %q", mode)
}

// dial tries for a while: the host listens before it starts the guest, but a
// blocking connect of vsock gives up at a signal.
func dial(port uint32) (net.Conn, error) {
	var err error
	for range 20 {
		var c net.Conn
		if c, err = vsock.Dial(agentapi.HostCID, port, nil); err == nil {
			return c, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, err
}

func greet(c net.Conn, version uint32) error {
	var b [agentapi.HelloSize]byte
	binary.LittleEndian.PutUint32(b[0:], agentapi.HelloMagic)
	binary.LittleEndian.PutUint32(b[4:], version)
	_, err := c.Write(b[:])
	return err
}

func badHello(c net.Conn, kind string) error {
	switch kind {
	case "garbage":
		b := make([]byte, agentapi.HelloSize)
		rand.Read(b)
		_, err := c.Write(b)
		return err
	case "version":
		return greet(c, 77)
	case "endless":
		b := make([]byte, 64<<10)
		for {
			if _, err := c.Write(b); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("no hello %q", kind)
}

// each serves every connection with f.
func each(l net.Listener, f func(net.Conn)) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go f(c)
	}
}

// garbage answers a ttrpc client with random bytes.
func garbage(c net.Conn) {
	b := make([]byte, 64<<10)
	for {
		rand.Read(b)
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// frames answers with well-formed frames of ttrpc that nobody asked for: unknown
// streams, lengths up to the limit and above it.
func frames(c net.Conn) {
	for n := uint32(0); ; n++ {
		size := uint32(1) << (n % 24)
		var h [10]byte
		binary.BigEndian.PutUint32(h[0:], size)
		binary.BigEndian.PutUint32(h[4:], n)
		h[8], h[9] = byte(n%4), byte(n)
		if _, err := c.Write(append(h[:], make([]byte, size)...)); err != nil {
			return
		}
	}
}

// floods opens as many connections to the host as it can, and fills those that
// are accepted.
func floods() {
	junk := make([]byte, 64<<10)
	var open []int
	for n := 0; ; n++ {
		if len(open) == 400 {
			syscall.Close(open[0])
			open = open[1:]
		}
		fd, err := syscall.Socket(40 /* AF_VSOCK */, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		_ = syscall.SetNonblock(fd, true)
		if err := connect(fd, uint32(n%2048)); err != nil && !errors.Is(err, syscall.EINPROGRESS) {
			syscall.Close(fd)
			continue
		}
		open = append(open, fd)
		_, _ = syscall.Write(fd, junk)
	}
}

func serve(calls, streams net.Listener, a *agent) error {
	srv, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	agentapi.RegisterAgentService(srv, a)
	go func() { _ = each(streams, a.stream) }()
	return srv.Serve(context.Background(), calls)
}
