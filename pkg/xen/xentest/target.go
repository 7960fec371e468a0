// SPDX-License-Identifier: Apache-2.0

package xentest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen"
	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/evtchn"
	"github.com/xcontainer/xcontainer/pkg/xen/foreign"
	"github.com/xcontainer/xcontainer/pkg/xen/hypercall"
	"github.com/xcontainer/xcontainer/pkg/xen/pv"
)

// Environment of a run on real Xen.
const (
	// EnvXen, set to 1, makes the suite run on real Xen as well. Anything
	// missing then is a failure.
	EnvXen = "XCONTAINER_TEST_XEN"
	// EnvKernel and EnvInitramfs are paths of a vmlinux and an initramfs to
	// boot; the initramfs may be missing.
	EnvKernel    = "XCONTAINER_TEST_KERNEL"
	EnvInitramfs = "XCONTAINER_TEST_INITRAMFS"
	// EnvKernelUP is the path of a kernel for one virtual CPU; it may be missing.
	EnvKernelUP = "XCONTAINER_TEST_KERNEL_UP"
	// EnvLine is what the booted kernel must print; "Linux version" unless
	// set.
	EnvLine = "XCONTAINER_TEST_LINE"
)

// Channels are event channels as a back-end sees them.
type Channels interface {
	Pending([]abi.Port) (int, error)
	Unmask(...abi.Port) error
	Notify(abi.Port) error
	SetDeadline(time.Time) error
}

// Target is a hypervisor under test, and what a back-end process would do with
// the handles of a domain.
type Target struct {
	Host       *xen.Host
	Raw        Raw
	MapBackend func(*os.File, foreign.MapSpec) (page, pool, console []byte, unmap func() error, err error)
	Channels   func(*os.File) Channels
	// Hypercall makes a hypercall through a file, and is expected to fail.
	Hypercall func(*os.File) error
	// TooMuchKiB is more memory than there is free.
	TooMuchKiB uint64
	// Leaks names what is left, "" = nothing.
	Leaks func() string
	// Linux is a kernel to boot, LinuxUP one for a single virtual CPU; nil = none.
	Linux     *pv.Kernel
	LinuxUP   *pv.Kernel
	Initramfs []byte
	Line      string
}

// MachineTarget is the twin.
func MachineTarget(m *Machine) Target {
	return Target{
		Host:       xen.New(m),
		Raw:        m,
		MapBackend: m.MapBackend,
		Channels:   func(f *os.File) Channels { return m.Channels(f) },
		Hypercall:  m.Hypercall,
		TooMuchKiB: DefaultFrames * 8,
		Leaks:      m.Leaks,
	}
}

// RealTarget is the Xen this program runs on. Kernel and initramfs come from the
// environment. What it opens stays open until the program ends.
func RealTarget() (Target, error) {
	path := os.Getenv(EnvKernel)
	if path == "" {
		return Target{}, fmt.Errorf("xentest: %s=1 needs %s, the path of a vmlinux", EnvXen, EnvKernel)
	}
	kernel, err := pv.OpenKernel(path)
	if err != nil {
		return Target{}, err
	}
	t := Target{
		MapBackend: foreign.MapBackend,
		Channels:   func(f *os.File) Channels { return evtchn.New(f) },
		Hypercall:  restrictedCall,
		Linux:      kernel,
		Line:       "Linux version",
	}
	if line := os.Getenv(EnvLine); line != "" {
		t.Line = line
	}
	if path := os.Getenv(EnvKernelUP); path != "" {
		if t.LinuxUP, err = pv.OpenKernel(path); err != nil {
			return Target{}, err
		}
	}
	if path := os.Getenv(EnvInitramfs); path != "" {
		if t.Initramfs, err = os.ReadFile(path); err != nil {
			return Target{}, err
		}
	}
	if t.Host, err = xen.Open(); err != nil {
		return Target{}, err
	}
	door, err := hypercall.Open()
	if err != nil {
		return Target{}, err
	}
	t.Raw = door
	// A domain of 64 GiB: more than a lab has, within what Xen accepts.
	t.TooMuchKiB = 64 << 20
	before, err := boundChannels()
	if err != nil {
		return Target{}, err
	}
	t.Leaks = func() string { return realLeaks(t.Host, before) }
	return t, nil
}

// realLeaks looks at domains and at this kernel's event channels.
func realLeaks(h *xen.Host, channels int) string {
	infos, err := h.List(context.Background())
	if err != nil {
		return err.Error()
	}
	var left []string
	for _, i := range infos {
		if i.ID != 0 {
			left = append(left, fmt.Sprintf("domain %d (%s)", i.ID, i.State))
		}
	}
	n, err := boundChannels()
	if err != nil {
		return err.Error()
	}
	if n > channels {
		left = append(left, fmt.Sprintf("%d event channels", n-channels))
	}
	return strings.Join(left, ", ")
}

// boundChannels counts the interrupts that stand for ports of /dev/xen/evtchn.
func boundChannels() (int, error) {
	f, err := os.Open("/proc/interrupts")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.Contains(s.Text(), "evtchn:") {
			n++
		}
	}
	return n, nil
}

// restrictedCall asks for Xen's version, the most harmless hypercall.
func restrictedCall(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	ctlErr := conn.Control(func(fd uintptr) {
		err = versionCall(fd)
	})
	return errors.Join(ctlErr, err)
}

// isRefusal tells whether the kernel refused a hypercall.
func isRefusal(err error) bool { return errors.Is(err, unix.EPERM) }
