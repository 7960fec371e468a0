// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/integration/internal/ctrd"
	"github.com/xcontainer/xcontainer/pkg/xen"
)

// usage is what one process has.
type usage struct {
	rss     int64 // bytes
	fds     int64
	maps    int64 // mappings of files, and of memory that is shared
	devices int64 // of them those of Xen's devices: a domain's memory
	threads int64
}

// use reads a process's usage.
func use(pid int) (u usage, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	status, err := os.Open(filepath.Join(dir, "status"))
	if err != nil {
		return u, err
	}
	defer status.Close()
	if u.rss, err = field(status, "VmRSS:"); err != nil {
		return u, err
	}
	u.rss <<= 10
	if _, err := status.Seek(0, io.SeekStart); err != nil {
		return u, err
	}
	if u.threads, err = field(status, "Threads:"); err != nil {
		return u, err
	}
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return u, err
	}
	u.fds = int64(len(fds))
	maps, err := mappings(pid)
	for _, m := range maps {
		if strings.Contains(m, "xen/") || strings.Contains(m, "privcmd") {
			u.devices++
		}
	}
	u.maps = int64(len(maps))
	return u, err
}

// mappings are a process's lines of /proc/PID/maps, but for those of memory that is its
// own: all of that is mapped by Go's runtime, as its heap and its tables grow and as it
// asks for huge pages, and is measured as memory.
func mappings(pid int) ([]string, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "maps"))
	if err != nil {
		return nil, err
	}
	return notOwn(string(b))
}

// notOwn are those lines of /proc/PID/maps that have a file, or are shared.
func notOwn(maps string) (lines []string, err error) {
	for line := range strings.Lines(maps) {
		f := strings.Fields(line) // addresses, permissions, offset, device, inode, name
		if len(f) < 5 || len(f[1]) != 4 {
			return nil, fmt.Errorf("/proc/PID/maps: a line %q", line)
		}
		if f[4] != "0" || f[1][3] == 's' {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines, nil
}

// field reads a number out of a file of lines "Name: 12 kB".
func field(r io.Reader, name string) (int64, error) {
	for s := bufio.NewScanner(r); s.Scan(); {
		if f := strings.Fields(s.Text()); len(f) > 1 && f[0] == name {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("no line %s", name)
}

const (
	goroutinesWait = 20 * time.Second
	stacksMark     = "all stacks, as SIGUSR1 asks"
)

// goroutine begins the part of a dump that is about one.
var goroutine = regexp.MustCompile(`goroutine \d+ \[`)

// goroutines has a shim write its stacks to the log, and counts them.
func goroutines(pid int) (int64, error) {
	log, err := os.Open(ctrd.Log)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	if _, err := log.Seek(0, io.SeekEnd); err != nil {
		return 0, err
	}
	if err := unix.Kill(pid, unix.SIGUSR1); err != nil {
		return 0, fmt.Errorf("signal the shim: %w", err)
	}
	var text strings.Builder
	for deadline := time.Now().Add(goroutinesWait); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		n, err := io.Copy(&text, log)
		if err != nil {
			return 0, err
		}
		// Complete once the line is there and nothing has come since.
		if n == 0 && strings.Contains(text.String(), stacksMark) {
			return countGoroutines(text.String())
		}
	}
	return 0, errors.New("no stacks in containerd's log")
}

// countGoroutines counts those of the only dump in text.
func countGoroutines(text string) (int64, error) {
	_, dump, ok := strings.Cut(text, stacksMark)
	n := int64(len(goroutine.FindAllString(dump, -1)))
	if !ok || n == 0 {
		return 0, errors.New("no stacks in the log")
	}
	return n, nil
}

// machine is what the host as a whole has.
type machine struct {
	available int64 // bytes of dom0's memory, caches dropped
	slab      int64 // bytes of the kernel's that cannot be reclaimed
	free      int64 // bytes of memory for domains
	ports     int64 // event channels of dom0, bound to whatever
	daemon    int64 // descriptors of containerd
}

// look measures the host.
func look() (m machine, err error) {
	debug.FreeOSMemory() // this program's own
	unix.Sync()
	// Pages, then dentries and inodes; twice, since the first frees the second's.
	for range 2 {
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
			return m, err
		}
	}
	for name, at := range map[string]*int64{"MemAvailable:": &m.available, "SUnreclaim:": &m.slab} {
		f, err := os.Open("/proc/meminfo")
		if err != nil {
			return m, err
		}
		*at, err = field(f, name)
		f.Close()
		if err != nil {
			return m, fmt.Errorf("/proc/meminfo: %w", err)
		}
		*at <<= 10
	}
	if m.free, err = xenFree(); err != nil {
		return m, err
	}
	if m.ports, err = ports(); err != nil {
		return m, err
	}
	m.daemon, err = daemonFDs()
	return m, err
}

func xenFree() (int64, error) {
	h, err := xen.Open()
	if err != nil {
		return 0, err
	}
	defer h.Close()
	c, err := h.Capacity()
	return int64(c.Free), err
}

// ports counts dom0's event channels: the interrupts that Xen delivers.
func ports() (n int64, err error) {
	b, err := os.ReadFile("/proc/interrupts")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "xen-dyn") || strings.Contains(line, "evtchn") {
			n++
		}
	}
	return n, nil
}

func daemonFDs() (int64, error) {
	pid, err := ctrd.DaemonPID()
	if err != nil {
		return 0, err
	}
	fds, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "fd"))
	return int64(len(fds)), err
}
