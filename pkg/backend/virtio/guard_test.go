// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestGuard(t *testing.T) {
	mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	if err := Guard(func() error { mem[5] = 1; return nil }); err == nil {
		t.Error("a fault is no error")
	}
	want := errors.New("own")
	if err := Guard(func() error { return want }); err != want {
		t.Errorf("got %v", err)
	}
	func() {
		defer func() {
			if r := recover(); r != "other" {
				t.Errorf("recovered %v", r)
			}
		}()
		Guard(func() error { panic("other") })
	}()
}
