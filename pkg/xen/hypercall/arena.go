// SPDX-License-Identifier: Apache-2.0

package hypercall

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Size and number of the buffers. The largest user is the list of domains, 112
// bytes each; the number limits how many hypercalls run at once.
const (
	slotSize  = 64 << 10
	slotCount = 8
)

// arena hands out buffers of memory that hypercalls may use.
type arena struct {
	mem  []byte
	free chan []byte

	closing sync.Once
	closed  chan struct{}
}

func newArena(fd int) (*arena, error) {
	mem, err := unix.Mmap(fd, 0, slotSize*slotCount, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", slotSize*slotCount, err)
	}
	a := &arena{mem: mem, free: make(chan []byte, slotCount), closed: make(chan struct{})}
	for i := range slotCount {
		a.free <- mem[i*slotSize : (i+1)*slotSize : (i+1)*slotSize]
	}
	return a, nil
}

// get waits for a buffer of slotSize bytes, content undefined.
func (a *arena) get() ([]byte, error) {
	select {
	case <-a.closed:
		return nil, ErrClosed
	default:
	}
	select {
	case b := <-a.free:
		return b, nil
	case <-a.closed:
		return nil, ErrClosed
	}
}

func (a *arena) put(b []byte) { a.free <- b }

// close waits for all buffers to come back and ends the mapping.
func (a *arena) close() error {
	var err error
	a.closing.Do(func() {
		close(a.closed)
		for range slotCount {
			<-a.free
		}
		err = unix.Munmap(a.mem)
	})
	return err
}
