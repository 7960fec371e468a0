// SPDX-License-Identifier: Apache-2.0

package record

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	if r, err := Read(dir); r != nil || err != nil {
		t.Fatalf("nothing: %v, %v", r, err)
	}
	if err := Remove(dir); err != nil {
		t.Fatal(err)
	}
	domid := uint16(7)
	for _, want := range []*Record{
		{ID: "a", Namespace: "n", Created: time.Unix(1, 2).UTC(), UUID: UUID{1, 15: 255}},
		{ID: "a", DomID: &domid, Shim: Process{1, 2}, Backend: Process{3, 4}, Holder: Process{5, 6}},
	} {
		if err := want.Write(dir); err != nil {
			t.Fatal(err)
		}
		got, err := Read(dir)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	if err := Remove(dir); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestBadRecords(t *testing.T) {
	for _, data := range []string{``, `{`, `{"uuid":"00"}`, `{"uuid":"zz000000000000000000000000000000"}`, `{"domid":65536}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, Name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(dir); err == nil {
			t.Errorf("%q: no error", data)
		}
	}
}

func TestKill(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait()
	}()
	p, err := Of(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	other := p
	other.Start++
	if err := other.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now, err := Of(p.PID); err != nil || now != p {
		t.Fatalf("another process's pid: %v, %v", now, err)
	}
	if err := p.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-ended
	if err := p.Kill(t.Context()); err != nil {
		t.Errorf("ended already: %v", err)
	}
	if err := (Process{}).Kill(t.Context()); err != nil {
		t.Errorf("none: %v", err)
	}
}
