// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/xcontainer/xcontainer/pkg/backend/confine"
	"github.com/xcontainer/xcontainer/pkg/backend/control"
	"github.com/xcontainer/xcontainer/pkg/noxs"
	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/foreign"
)

const (
	// BackendRole is the argument with which this program runs as a back-end;
	// its main calls RunBackend then.
	BackendRole = "backend"

	// backendGrace is how long a back-end may take to end by itself once its
	// control socket is closed.
	backendGrace = 2 * time.Second
	undoTimeout  = 30 * time.Second
)

// wiring is what a back-end process needs besides the device page's layout. It
// travels in control.Config.Wiring.
type wiring struct {
	Map   foreign.MapSpec `json:"map"`
	Ports xen.Ports       `json:"ports"`
}

// backendProcess is the child that runs a domain's devices.
type backendProcess struct {
	client *control.Client
	pid    int
	done   chan struct{} // closed when the process has ended and been reaped

	proc     *os.Process
	stopOnce sync.Once
	ended    string // how; valid after done
}

// startBackend runs the domain's back-end and hands it the domain's memory,
// event channels and disks.
func (g *Guest) startBackend(ctx context.Context, c Config, devices noxs.Layout) error {
	logR, logW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start the back-end: %w", err)
	}
	g.console, err = startConsole(logR, c.ConsolePath, c.ConsoleLine)
	if err != nil {
		closeAll(logR, logW)
		return fmt.Errorf("start the back-end: open the console log: %w", err)
	}
	defer logW.Close()
	g.backend, err = spawnBackend()
	if err != nil {
		return err
	}
	if err := c.RecordBackend(g.backend.pid); err != nil {
		return err
	}
	handles, err := g.dom.BackendHandles()
	if err != nil {
		return err
	}
	defer handles.Close()
	raw, err := json.Marshal(wiring{Map: handles.Map, Ports: handles.Ports})
	if err != nil {
		return fmt.Errorf("start the back-end: %w", err)
	}
	files := []*os.File{handles.Privcmd, handles.Evtchn, logW}
	for _, d := range c.Disks {
		files = append(files, d.File)
	}
	return g.backend.client.Start(ctx, control.Config{Layout: devices, Wiring: raw}, files...)
}

// spawnBackend starts this program in the other role.
func spawnBackend() (*backendProcess, error) {
	conn, theirs, err := control.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe", BackendRole)
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/"
	cmd.Env = []string{"GOMAXPROCS=2", "GOGC=50"}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Cloneflags: confine.Cloneflags}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start the back-end process: %w", err)
	}
	b := &backendProcess{
		client: control.NewClient(conn),
		pid:    cmd.Process.Pid,
		proc:   cmd.Process,
		done:   make(chan struct{}),
	}
	go func() {
		defer close(b.done)
		b.ended = "reaped elsewhere"
		if st, err := cmd.Process.Wait(); err == nil {
			b.ended = st.String()
		}
	}()
	return b, nil
}

// stop ends the process and waits for its end. It is asked first, so that it
// passes on the rest of the console, and killed if it does not listen.
func (b *backendProcess) stop() {
	b.stopOnce.Do(func() {
		select {
		case <-b.done:
			// What it said last may still be on its way.
			select {
			case <-b.client.Done():
			case <-time.After(backendGrace):
			}
		default:
		}
		b.client.Close()
		select {
		case <-b.done:
			return
		case <-time.After(backendGrace):
		}
		// An error means that it has just ended.
		b.proc.Kill()
	})
	<-b.done
}

// reason says why the process ended; valid after done.
func (b *backendProcess) reason() string {
	if err := b.client.Err(); err != nil {
		return fmt.Sprintf("%s (%v)", b.ended, err)
	}
	return b.ended
}
