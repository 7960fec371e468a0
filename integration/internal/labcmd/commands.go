// SPDX-License-Identifier: Apache-2.0

package labcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/lab"
)

func runUp(ctx context.Context, e *env, args []string) (int, error) {
	o := &e.opt
	e.flags.StringVar(&o.Xen, "xen", "", "Xen `version`, xkernel, xkernel-4.20 or file (default 4.17)")
	e.flags.BoolVar(&o.NoXen, "no-xen", false, "boot the same dom0 on plain Linux")
	e.flags.StringVar(&o.PTI, "pti", "", "`on or off`: Linux's page table isolation, with --no-xen (default the kernel's choice)")
	e.flags.IntVar(&o.MemMB, "mem", lab.DefaultMemMB, "memory of the whole machine in `MiB`")
	e.flags.IntVar(&o.CPUs, "cpus", lab.DefaultCPUs, "physical CPUs of the machine")
	e.flags.StringVar(&o.Payload, "payload", "", "`folder` that is /opt/xcontainer in dom0 (default build/payload)")
	e.flags.StringVar(&o.LinuxArgs, "linux-args", "", "more `arguments` for the dom0 kernel")
	e.flags.StringVar(&o.XenArgs, "xen-args", "", "more `arguments` for Xen")
	if _, err := e.parse(args, 0, 0); err != nil {
		return exitFailed, err
	}
	l, err := lab.Up(ctx, *o)
	if err != nil {
		return exitFailed, err
	}
	return 0, l.Close()
}

func runBuild(ctx context.Context, e *env, args []string) (int, error) {
	e.flags.StringVar(&e.opt.Xen, "xen", "", "Xen `version`, xkernel, xkernel-4.20 or file (default 4.17)")
	update := e.flags.Bool("update", false, "fetch new package lists first")
	if _, err := e.parse(args, 0, 0); err != nil {
		return exitFailed, err
	}
	if *update {
		if err := lab.UpdateLists(ctx, e.opt); err != nil {
			return exitFailed, err
		}
	}
	if err := lab.Build(ctx, e.opt); err != nil {
		return exitFailed, err
	}
	return 0, nil
}

func runDown(ctx context.Context, e *env, args []string) (int, error) {
	if _, err := e.parse(args, 0, 0); err != nil {
		return exitFailed, err
	}
	if err := lab.Down(ctx, e.opt); err != nil && !errors.Is(err, lab.ErrNotRunning) {
		return exitFailed, err
	}
	return 0, nil
}

func runStatus(ctx context.Context, e *env, args []string) (int, error) {
	if _, err := e.parse(args, 0, 0); err != nil {
		return exitFailed, err
	}
	l, err := lab.Attach(ctx, e.opt)
	if err != nil {
		return exitFailed, err
	}
	defer l.Close()
	s := l.State()
	xen := "Xen " + s.Xen
	if s.Xen == "" {
		xen = "no Xen"
	}
	if s.PTI != "" {
		xen += ", page table isolation " + s.PTI
	}
	fmt.Printf("running: %s, %d MiB, %d CPUs (%s), QEMU pid %d, SSH port %d\nconsole: %s\npayload: %s\n",
		xen, s.MemMB, s.CPUs, s.Accel, s.Pid, s.Port, l.ConsolePath(), s.Payload)
	return 0, nil
}

func runPayload(ctx context.Context, e *env, args []string) (int, error) {
	if _, err := e.parse(args, 0, 0); err != nil {
		return exitFailed, err
	}
	l, err := lab.Attach(ctx, e.opt)
	if err != nil {
		return exitFailed, err
	}
	defer l.Close()
	e.show.step("refresh the payload")
	if err := l.SyncPayload(ctx); err != nil {
		return exitFailed, err
	}
	return 0, nil
}

func runCp(ctx context.Context, e *env, args []string) (int, error) {
	rest, err := e.parse(args, 2, 2)
	if err != nil {
		return exitFailed, err
	}
	src, fromLab := strings.CutPrefix(rest[0], "lab:")
	dst, toLab := strings.CutPrefix(rest[1], "lab:")
	if fromLab == toLab {
		return exitFailed, fmt.Errorf("lab: %w: one of SRC and DST must begin with lab:", errUsage)
	}
	l, err := lab.Attach(ctx, e.opt)
	if err != nil {
		return exitFailed, err
	}
	defer l.Close()
	e.show.step("copy " + rest[0] + " to " + rest[1])
	if toLab {
		err = l.CopyTo(ctx, src, dst)
	} else {
		err = l.CopyFrom(ctx, src, dst)
	}
	if err != nil {
		return exitFailed, err
	}
	return 0, nil
}

// dom0Logs are the logs that live in dom0.
var dom0Logs = map[string]string{
	"containerd": "/var/log/containerd.log",
	"sshd":       "/var/log/sshd.log",
}

func runLogs(ctx context.Context, e *env, args []string) (int, error) {
	follow := e.flags.Bool("f", false, "go on as the log grows")
	rest, err := e.parse(args, 0, 1)
	if err != nil {
		return exitFailed, err
	}
	if len(rest) == 0 || rest[0] == "console" {
		path, err := lab.ConsolePath(e.opt)
		if err == nil {
			err = cat(ctx, path, *follow)
		}
		if err != nil {
			return exitFailed, err
		}
		return 0, nil
	}
	path, ok := dom0Logs[rest[0]]
	if !ok {
		return exitFailed, fmt.Errorf("lab: %w: no log called %q", errUsage, rest[0])
	}
	l, err := lab.Attach(ctx, e.opt)
	if err != nil {
		return exitFailed, err
	}
	defer l.Close()
	line := "cat " + path
	if *follow {
		line = "exec tail -n +1 -f " + path
	}
	c := l.Command(line)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(ctx); err != nil && ctx.Err() == nil {
		return exitFailed, err
	}
	return 0, nil
}

// cat prints a file, and with follow what is added to it until ctx ends.
func cat(ctx context.Context, path string, follow bool) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("lab: logs: %w", err)
	}
	defer f.Close()
	for {
		if _, err := io.Copy(os.Stdout, f); err != nil {
			return fmt.Errorf("lab: logs: %w", err)
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}
