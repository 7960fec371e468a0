// SPDX-License-Identifier: Apache-2.0

package record

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestHandleNamesItsMaker(t *testing.T) {
	self, err := Of(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	u, err := newUUID(self)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := newUUID(self); err != nil || again == u {
		t.Errorf("two handles: %x and %x, %v", u, again, err)
	}
	if !u.Ours() || !u.MakerAlive() {
		t.Errorf("%x: ours %v, maker alive %v", u, u.Ours(), u.MakerAlive())
	}
	later := self
	later.Start++
	if u, err = newUUID(later); err != nil || u.MakerAlive() {
		t.Errorf("another process with the maker's pid is taken for it: %v", err)
	}
	if u, err = newUUID(Process{}); err != nil || !u.Ours() || !u.MakerAlive() {
		t.Errorf("unknown maker: %v", err)
	}
	if _, err = newUUID(Process{PID: 1 << 24}); err == nil {
		t.Error("a pid that does not fit was taken")
	}
	if u, err = NewUUID(self); err != nil || !u.Ours() || !u.MakerAlive() {
		t.Errorf("NewUUID: %x, %v", u, err)
	}
}

func TestOtherHandles(t *testing.T) {
	for _, u := range []UUID{{}, {'x', 'c', 't', 'r'}, {'x', 'c', 't', 'r', 6: 0x40, 8: 0x80}, {0xab, 6: 0x80, 8: 0x80}} {
		if u.Ours() {
			t.Errorf("%x is taken for ours", u)
		}
	}
}

func TestAlive(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	p, err := Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if !p.Alive() {
		t.Error("a running process is not alive")
	}
	if (Process{PID: p.PID, Start: p.Start + 1}).Alive() || (Process{}).Alive() {
		t.Error("a process that is none is alive")
	}
	u, err := newUUID(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Not reaped yet: dead all the same. The signal takes its time.
	for deadline := time.Now().Add(10 * time.Second); p.Alive() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if p.Alive() || u.MakerAlive() {
		t.Error("a process that has ended is alive")
	}
}
