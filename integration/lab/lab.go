// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/inputs"
)

// Lab is a running lab with one open connection, which all commands share.
// Its methods may be called from several goroutines.
type Lab struct {
	dir    string
	state  *State
	client *ssh.Client
}

// Marks that dom0's boot script leaves on the console.
const (
	markContainerd = "lab: containerd answers"
	markNoDaemon   = "lab: containerd did not start"
)

// Limits of one boot.
const (
	bootTries   = 3
	bootLimit   = 300 * time.Second
	silentLimit = 90 * time.Second // without a byte on the console
)

// crashMarks on the console mean that the machine will not come up.
var crashMarks = []string{"Panic on CPU", "Kernel panic", "Domain 0 crashed", "Domain 0 shutdown", "Xen BUG", markNoDaemon}

// errNoBoot means that a boot failed in a way that a new start may cure.
var errNoBoot = errors.New("the machine did not come up")

// Up builds what is missing and starts the lab, and returns when containerd
// answers. A running lab is an error.
func Up(ctx context.Context, o Options) (*Lab, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	dir, err := o.stateDir()
	if err != nil {
		return nil, err
	}
	m, files, err := o.prepare(ctx)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lab: make state directory: %w", err)
	}
	unlock, err := cache.LockFile(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := readState(dir); !errors.Is(err, ErrNotRunning) {
		if err == nil {
			err = fmt.Errorf("lab: start: the lab %q runs already (lab down ends it)", o.Name)
		}
		return nil, err
	}
	return bootRetrying(ctx, o, dir, m, files)
}

// bootRetrying boots until the machine comes up: under emulation a dom0 crashes
// now and then (seen with Xen 4.20).
func bootRetrying(ctx context.Context, o Options, dir string, m machine, files map[string]string) (*Lab, error) {
	what := "boot " + o.title()
	for n := 1; ; n++ {
		o.Progress(what)
		l, err := boot(ctx, o, dir, m, files)
		if err == nil || !errors.Is(err, errNoBoot) || n == bootTries || ctx.Err() != nil {
			return l, err
		}
		why := strings.TrimPrefix(err.Error(), "lab: ")
		what = fmt.Sprintf("boot %s again, %d of %d (%s)", o.title(), n+1, bootTries, why)
	}
}

// title names the machine in messages.
func (o Options) title() string {
	if o.NoXen && o.PTI != "" {
		return "the lab without Xen, with page table isolation " + o.PTI
	}
	if o.NoXen {
		return "the lab without Xen"
	}
	return "the lab on Xen " + o.Xen
}

// linuxArgs is what is added to the kernel's command line.
func (o Options) linuxArgs() string {
	if o.PTI == "" {
		return o.LinuxArgs
	}
	return strings.TrimSpace("pti=" + o.PTI + " " + o.LinuxArgs)
}

// Build makes everything that Up would need, without starting the lab.
func Build(ctx context.Context, o Options) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	_, _, err = o.prepare(ctx)
	return err
}

// prepare checks the machine and builds the inputs. It returns the machine and
// the files that its state directory links to, by name.
func (o Options) prepare(ctx context.Context) (machine, map[string]string, error) {
	m := machine{
		kvm: haveKVM(), xen: !o.NoXen, memMB: o.MemMB, cpus: o.CPUs,
		payload: o.Payload, linuxArgs: o.linuxArgs(), xenArgs: o.XenArgs, shares: o.Shares,
	}
	if err := CheckHost(ctx); err != nil {
		return m, nil, err
	}
	c, err := cache.Open(o.Cache)
	if err != nil {
		return m, nil, err
	}
	b := inputs.NewBuilder(c, o.Progress)
	d, err := b.Dom0(ctx)
	if err != nil {
		return m, nil, err
	}
	images, imagesKey, err := b.Images(ctx)
	if err != nil {
		return m, nil, err
	}
	disk, err := bake(ctx, c, o, d, images, imagesKey)
	if err != nil {
		return m, nil, err
	}
	files := map[string]string{"vmlinuz": d.Kernel, "initrd": d.Initrd, "disk": disk}
	if !o.NoXen {
		if files["xen"], err = b.Xen(ctx, o.Xen); err != nil {
			return m, nil, err
		}
	}
	if err := os.MkdirAll(o.Payload, 0o755); err != nil {
		return m, nil, fmt.Errorf("lab: payload folder: %w", err)
	}
	return m, files, nil
}

// boot starts QEMU once and waits for the machine.
func boot(ctx context.Context, o Options, dir string, m machine, files map[string]string) (*Lab, error) {
	for name, target := range files {
		link := filepath.Join(dir, name)
		os.Remove(link)
		if err := os.Symlink(target, link); err != nil {
			return nil, fmt.Errorf("lab: link machine files: %w", err)
		}
	}
	hostKey, err := makeKeys(dir)
	if err != nil {
		return nil, err
	}
	if m.port, err = freePort(); err != nil {
		return nil, err
	}
	cmd, err := m.start(dir)
	if err != nil {
		return nil, err
	}
	go cmd.Wait() // no zombie while this process lives
	s := &State{
		Pid: cmd.Process.Pid, Port: m.port, HostKey: hostKey,
		MemMB: o.MemMB, CPUs: o.CPUs, Payload: o.Payload, Accel: "tcg", PTI: o.PTI,
	}
	if m.kvm {
		s.Accel = "kvm"
	}
	if m.xen {
		s.Xen = o.Xen
	}
	if s.Start, err = procStart(s.Pid); err != nil {
		return nil, fmt.Errorf("lab: %w: QEMU ended at once: %s", errNoBoot, logTail(dir, qemuLogFile))
	}
	l, err := wait(ctx, dir, s)
	if err != nil {
		// The next try writes a new console: keep this one for the reader.
		os.Rename(filepath.Join(dir, consoleFile), filepath.Join(dir, failedFile))
		return nil, errors.Join(err, down(dir, s))
	}
	if err := l.checkPTI(ctx, o.PTI); err != nil {
		return nil, errors.Join(err, l.Down())
	}
	return l, nil
}

// checkPTI makes sure that the kernel does what --pti asked for: a comparison on
// another machine than it says would be worth nothing.
func (l *Lab) checkPTI(ctx context.Context, want string) error {
	if want == "" {
		return nil
	}
	r, err := l.Run(ctx, "grep -m1 ^flags /proc/cpuinfo", nil)
	if err != nil {
		return fmt.Errorf("lab: ask for page table isolation: %w", err)
	}
	if got := ptiOf(string(r.Stdout)); got != want {
		return fmt.Errorf("lab: page table isolation is %s although --pti=%s was given", got, want)
	}
	return nil
}

// ptiOf finds Linux's own flag for page table isolation in a line of flags.
func ptiOf(flags string) string {
	if slices.Contains(strings.Fields(flags), "pti") {
		return "on"
	}
	return "off"
}

// wait follows the console until the machine is ready, then connects.
func wait(ctx context.Context, dir string, s *State) (*Lab, error) {
	if err := writeState(dir, s); err != nil {
		return nil, err
	}
	con := filepath.Join(dir, consoleFile)
	begin, last, size := time.Now(), time.Now(), -1
	for {
		text, err := os.ReadFile(con)
		if err != nil {
			return nil, fmt.Errorf("lab: read console: %w", err)
		}
		if len(text) != size {
			size, last = len(text), time.Now()
		}
		if line, bad := crashLine(text); bad {
			return nil, fmt.Errorf("lab: %w: %s", errNoBoot, line)
		}
		if bytes.Contains(text, []byte(markContainerd)) {
			break
		}
		switch {
		case !s.alive():
			return nil, fmt.Errorf("lab: %w: QEMU ended: %s", errNoBoot, logTail(dir, qemuLogFile))
		case time.Since(last) > silentLimit:
			return nil, fmt.Errorf("lab: %w: nothing on the console for %v", errNoBoot, silentLimit)
		case time.Since(begin) > bootLimit:
			return nil, fmt.Errorf("lab: %w within %v", errNoBoot, bootLimit)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lab: wait for the machine: %w", context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
	client, err := connect(ctx, dir, s)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", err, errNoBoot)
	}
	return &Lab{dir: dir, state: s, client: client}, nil
}

// crashLine finds the first line of the console that tells of a crash.
func crashLine(console []byte) (string, bool) {
	for line := range bytes.Lines(console) {
		for _, m := range crashMarks {
			if bytes.Contains(line, []byte(m)) {
				return string(bytes.TrimSpace(line)), true
			}
		}
	}
	return "", false
}

// logTail returns the last line of a file of the state directory.
func logTail(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// Attach connects to a running lab: the one of o.Checkout and o.Name.
func Attach(ctx context.Context, o Options) (*Lab, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	dir, err := o.stateDir()
	if err != nil {
		return nil, err
	}
	s, err := readState(dir)
	if err != nil {
		return nil, err
	}
	return (&Lab{dir: dir, state: s}).Again(ctx)
}

// Again makes a further connection to the lab, for who wants to run commands beside
// others: of two that began at once on one connection, dom0's SSH server was seen to
// lose one.
func (l *Lab) Again(ctx context.Context) (*Lab, error) {
	client, err := connect(ctx, l.dir, l.state)
	if err != nil {
		return nil, err
	}
	return &Lab{dir: l.dir, state: l.state, client: client}, nil
}

// State describes the running lab.
func (l *Lab) State() State { return *l.state }

// Close closes the connection; the lab goes on.
func (l *Lab) Close() error {
	if err := l.client.Close(); err != nil {
		return fmt.Errorf("lab: close connection: %w", err)
	}
	return nil
}

// Fresh is Up for a lab that must be new: one of that name, which an interrupted
// run has left behind, is ended first. All of o.Shares are mounted.
func Fresh(ctx context.Context, o Options) (*Lab, error) {
	if err := Down(ctx, o); err != nil && !errors.Is(err, ErrNotRunning) {
		return nil, err
	}
	l, err := Up(ctx, o)
	if err != nil {
		return nil, err
	}
	for tag := range o.Shares {
		if err := l.Mount(ctx, tag); err != nil {
			return nil, errors.Join(err, l.Down())
		}
	}
	return l, nil
}

// Down ends the lab's machine. Its disk is lost.
func (l *Lab) Down() error {
	l.client.Close()
	return down(l.dir, l.state)
}

// Down ends the lab of o.Checkout and o.Name. If it is not running, that is
// ErrNotRunning.
func Down(ctx context.Context, o Options) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	dir, err := o.stateDir()
	if err != nil {
		return err
	}
	s, err := readState(dir)
	if err != nil {
		return err
	}
	return down(dir, s)
}

func down(dir string, s *State) error {
	if err := endProcess(s.Pid, s.Start); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, stateFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("lab: remove state: %w", err)
	}
	return nil
}

// ConsolePath is the file that gets what Xen and dom0 write to the serial line.
func (l *Lab) ConsolePath() string { return filepath.Join(l.dir, consoleFile) }

// ConsolePath returns the console file of the lab of o, running or not.
func ConsolePath(o Options) (string, error) {
	o, err := o.withDefaults()
	if err != nil {
		return "", err
	}
	dir, err := o.stateDir()
	return filepath.Join(dir, consoleFile), err
}

// Console returns what Xen and dom0 have written to the serial line so far.
func (l *Lab) Console() ([]byte, error) {
	b, err := os.ReadFile(l.ConsolePath())
	if err != nil {
		return nil, fmt.Errorf("lab: read console: %w", err)
	}
	return b, nil
}

// SyncPayload makes dom0's /opt/xcontainer equal to the payload folder.
func (l *Lab) SyncPayload(ctx context.Context) error {
	if err := l.must(ctx, "lab-payload"); err != nil {
		return fmt.Errorf("lab: refresh payload: %w", err)
	}
	return nil
}

// Mount mounts the folder that Options.Shares has under tag at /run/lab/tag,
// live and read-only.
func (l *Lab) Mount(ctx context.Context, tag string) error {
	dir := "/run/lab/" + tag
	err := l.must(ctx, "mkdir -p "+Quote(dir)+" && mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000 "+Quote(tag, dir))
	if err != nil {
		return fmt.Errorf("lab: mount the shared folder %s: %w", tag, err)
	}
	return nil
}

// must runs a script in dom0 that has to succeed.
func (l *Lab) must(ctx context.Context, script string) error {
	_, err := l.output(ctx, script)
	return err
}

// output is what a script in dom0 prints, which has to succeed.
func (l *Lab) output(ctx context.Context, script string) ([]byte, error) {
	r, err := l.Run(ctx, script, nil)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit code %d: %s", r.Code, bytes.TrimSpace(r.Stderr))
	}
	return r.Stdout, err
}

// UpdateLists fetches new package lists, so that the next build takes the
// newest packages.
func UpdateLists(ctx context.Context, o Options) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	c, err := cache.Open(o.Cache)
	if err != nil {
		return err
	}
	return inputs.NewBuilder(c, o.Progress).Update(ctx)
}
