// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// qemuProgram is the emulator.
const qemuProgram = "qemu-system-x86_64"

// xenArgs is the hypervisor's command line. spec-ctrl=eager-fpu is needed for
// correctness under emulation: docs/decisions/0002. Without bootscrub=0 Xen
// writes to all memory at boot, which makes QEMU use all of it and takes a third
// of the time; memory of an emulated machine is zero anyway.
const xenArgs = "com1=115200,8n1 console=com1 loglvl=info guest_loglvl=all spec-ctrl=eager-fpu bootscrub=0"

// linuxArgs is the dom0 kernel's command line, console apart. A crash ends the
// machine, since QEMU runs with -no-reboot.
const linuxArgs = "panic=1 apparmor=0 audit=0 cryptomgr.notests"

// machine is what the QEMU command line depends on. File names are those of
// links in the state directory, which is QEMU's working directory: so no path
// of the user's can upset the lists separated by commas and blanks.
type machine struct {
	kvm       bool
	xen       bool
	memMB     int
	cpus      int
	port      int // on 127.0.0.1, leads to dom0's port 22
	payload   string
	linuxArgs string
	xenArgs   string
	keepDisk  bool              // write to the disk itself, not to an overlay
	shares    map[string]string // further read-only folders by mount tag
}

// args returns QEMU's arguments.
func (m machine) args() []string {
	// QEMU's SMAP lets a 6.12 dom0 crash (seen with QEMU 7.2).
	accel, cpu := "tcg,thread=multi", "max,-smap"
	if m.kvm {
		accel, cpu = "kvm", "host"
	}
	a := []string{
		"-accel", accel, "-cpu", cpu,
		"-smp", strconv.Itoa(m.cpus), "-m", strconv.Itoa(m.memMB),
		"-nographic", "-nodefaults", "-no-reboot",
		"-chardev", "file,id=console,path=" + consoleFile, "-serial", "chardev:console",
		"-qmp", "unix:" + monitorFile + ",server=on,wait=off",
	}
	linux := strings.TrimSpace(linuxArgs + " " + m.linuxArgs)
	if m.xen {
		xen := fmt.Sprintf("%s dom0_mem=%dM,max:%dM %s", xenArgs, dom0MemMB, dom0MemMB, m.xenArgs)
		a = append(a, "-kernel", "xen", "-append", strings.TrimSpace(xen),
			"-initrd", "vmlinuz console=hvc0 "+strings.ReplaceAll(linux, ",", ",,")+",initrd")
	} else {
		a = append(a, "-kernel", "vmlinuz", "-append", "console=ttyS0 "+linux, "-initrd", "initrd")
	}
	snapshot := "on"
	if m.keepDisk {
		snapshot = "off"
	}
	a = append(a,
		"-drive", "file=disk,if=none,id=disk,format=raw,cache=unsafe,discard=unmap,snapshot="+snapshot,
		"-device", "virtio-blk-pci,drive=disk",
		"-netdev", fmt.Sprintf("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:%d-:22", m.port),
		"-device", "virtio-net-pci,netdev=net,romfile=")
	share := func(tag, path string) {
		a = append(a, "-virtfs", "local,security_model=none,readonly=on,mount_tag="+tag+
			",path="+strings.ReplaceAll(path, ",", ",,"))
	}
	share("share", "share")
	share("payload", m.payload)
	for _, tag := range sortedKeys(m.shares) {
		share(tag, m.shares[tag])
	}
	return a
}

// haveKVM reports whether this machine can run Xen under KVM. A /dev/kvm on a
// processor without vmx and svm cannot (it opens, but Xen dies or crawls).
func haveKVM() bool {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || !cpuHasVirt(b) {
		return false
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// cpuHasVirt looks for vmx or svm among the flags in the text of /proc/cpuinfo.
func cpuHasVirt(cpuinfo []byte) bool {
	for line := range bytes.Lines(cpuinfo) {
		key, val, _ := strings.Cut(string(line), ":")
		if strings.TrimSpace(key) != "flags" {
			continue
		}
		for f := range strings.FieldsSeq(val) {
			if f == "vmx" || f == "svm" {
				return true
			}
		}
	}
	return false
}

// start runs QEMU in its own session, so that it outlives the command that
// started it. Its messages go to qemu.log.
func (m machine) start(dir string) (*exec.Cmd, error) {
	log, err := os.Create(filepath.Join(dir, qemuLogFile))
	if err != nil {
		return nil, fmt.Errorf("lab: start QEMU: %w", err)
	}
	defer log.Close()
	if err := os.WriteFile(filepath.Join(dir, consoleFile), nil, 0o644); err != nil {
		return nil, fmt.Errorf("lab: start QEMU: %w", err)
	}
	cmd := exec.Command(qemuProgram, m.args()...)
	cmd.Dir = dir
	// The overlay of snapshot=on is an unlinked file below TMPDIR.
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// What this process got from its parent, such as the lock of flock(1), must
	// not live on in QEMU.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, fmt.Errorf("lab: start QEMU: keep descriptors back: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("lab: start QEMU: %w", err)
	}
	return cmd, nil
}

// freePort returns a TCP port of 127.0.0.1 that was free a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("lab: find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// procStart returns the start time of a process in clock ticks since boot, the
// 22nd field of /proc/PID/stat. With the pid it names a process uniquely. A
// zombie counts as gone.
func procStart(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	return parseStat(string(b))
}

// parseStat reads state and start time out of a stat line, whose second field
// may hold blanks and parentheses.
func parseStat(line string) (string, error) {
	i := strings.LastIndexByte(line, ')')
	f := strings.Fields(line[i+1:])
	if i < 0 || len(f) < 20 {
		return "", fmt.Errorf("lab: understand process status %q", line)
	}
	if f[0] == "Z" || f[0] == "X" {
		return "", os.ErrProcessDone
	}
	return f[19], nil
}

// endProcess ends the process (pid, start): SIGTERM, and SIGKILL after 5 s.
func endProcess(pid int, start string) error {
	alive := func() bool {
		s, err := procStart(pid)
		return err == nil && s == start
	}
	for i := range 100 {
		if !alive() {
			return nil
		}
		sig := syscall.Signal(0)
		switch i {
		case 0:
			sig = syscall.SIGTERM
		case 50:
			sig = syscall.SIGKILL
		}
		if sig != 0 {
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("lab: end QEMU (pid %d): %w", pid, err)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("lab: end QEMU: pid %d does not die", pid)
}
