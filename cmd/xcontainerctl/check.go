// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/xcontainer/xcontainer/pkg/libos"
	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
	"github.com/xcontainer/xcontainer/pkg/xen"
)

// defaultAddress is containerd's socket.
const defaultAddress = "/run/containerd/containerd.sock"

const (
	// oneDomain is what a container without a memory limit takes.
	oneDomain = bundle.DefaultMemoryBytes
	// fewDomains is less than people want who try more than one.
	fewDomains = 4 * oneDomain
	// lowDom0 is available memory of dom0 with which shims are at risk: one
	// takes about 20 MB.
	lowDom0 = 64 << 20
)

// level is how good an item of a check is.
type level string

const (
	levelOK   level = "ok"
	levelWarn level = "warn" // containers run, something is worse than it could be
	levelFail level = "fail" // containers do not run
)

// item is one line of a check: what was found and, unless it is ok, what to do.
type item struct {
	Name  string `json:"name"`
	Level level  `json:"level"`
	Text  string `json:"text"`
}

// checked is what `check --json` prints. Fields and items are only ever added.
type checked struct {
	Fit   bool   `json:"fit"` // no item failed
	Items []item `json:"items"`
}

func (c *command) check(ctx context.Context) error {
	r := checked{Fit: true, Items: c.checkXen()}
	for _, f := range []func(context.Context) item{
		c.checkLibOS, c.checkShim, c.checkContainerd, c.checkSocket,
		c.checkCgroups, c.checkFeatures, c.checkOverlay, c.checkDom0Memory,
	} {
		r.Items = append(r.Items, f(ctx))
	}
	for _, i := range r.Items {
		r.Fit = r.Fit && i.Level != levelFail
	}
	if c.json {
		if err := c.printJSON(r); err != nil {
			return err
		}
	} else {
		for _, i := range r.Items {
			fmt.Fprintf(c.out, "%-5s %-11s %s\n", i.Level, i.Name, i.Text)
		}
	}
	if !r.Fit {
		return errFound
	}
	return nil
}

// checkXen looks at the hypervisor and its devices. Without Xen there is one
// thing to say.
func (c *command) checkXen() []item {
	host, err := c.openXen()
	if err != nil {
		return []item{{"xen", levelFail, err.Error()}}
	}
	defer host.Close()
	items := []item{{"xen", levelOK, fmt.Sprintf("%s, domctl interface %#x", host.Version(), host.Version().Domctl)}, c.checkDevices()}
	capacity, err := host.Capacity()
	if err != nil {
		return append(items, item{"memory", levelFail, err.Error()})
	}
	return append(items, checkScheduler(capacity), checkMemory(capacity))
}

// devices are the nodes of /dev/xen that are used, with the module of each.
var devices = []struct{ node, module string }{
	{"privcmd", "xen-privcmd"}, {"hypercall", "xen-privcmd"}, {"evtchn", "xen-evtchn"},
}

func (c *command) checkDevices() item {
	for _, d := range devices {
		f, err := os.OpenFile(filepath.Join(c.files, "dev/xen", d.node), os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			return item{"devices", levelFail, fmt.Sprintf("/dev/xen/%s is missing; load the kernel module with `modprobe %s`, and at every boot by a line in /etc/modules", d.node, d.module)}
		}
		if err != nil {
			return item{"devices", levelFail, fmt.Sprintf("%v; run this as root in dom0", err)}
		}
		f.Close()
	}
	return item{"devices", levelOK, "privcmd, hypercall and evtchn in /dev/xen"}
}

func checkScheduler(c xen.Capacity) item {
	if c.Scheduler != "credit2" {
		return item{"scheduler", levelWarn, fmt.Sprintf("%s: containers with CPU shares or quotas fail; boot Xen with sched=credit2", c.Scheduler)}
	}
	return item{"scheduler", levelOK, fmt.Sprintf("credit2 on %d CPUs", c.CPUs)}
}

func checkMemory(c xen.Capacity) item {
	text := fmt.Sprintf("%s of %s free for domains", mib(c.Free), mib(c.Total))
	const remedy = "; give dom0 less with dom0_mem=SIZE,max:SIZE on Xen's command line, or end domains"
	switch {
	case c.Free < oneDomain:
		return item{"memory", levelFail, fmt.Sprintf("%s, and a container without a limit takes %d MiB%s", text, oneDomain>>20, remedy)}
	case c.Free < fewDomains:
		return item{"memory", levelWarn, text + ", which is few containers" + remedy}
	}
	return item{"memory", levelOK, text}
}

// checkLibOS reads the guest's files as a shim does.
func (c *command) checkLibOS(context.Context) item {
	for _, vcpus := range []uint32{1, 2} { // each has a kernel of its own
		image, err := libos.LoadImage(c.share, vcpus)
		if err != nil {
			return item{"libos", levelFail, err.Error()}
		}
		image.Close()
	}
	v, err := kernelVersion(c.share)
	if err != nil {
		return item{"libos", levelWarn, fmt.Sprintf("kernel of unknown version: %v; install all files that `make libos` writes", err)}
	}
	return item{"libos", levelOK, fmt.Sprintf("kernels %s and initramfs in %s", v, c.share)}
}

func (c *command) checkShim(ctx context.Context) item {
	v, err := c.shimVersion(ctx)
	if err != nil {
		return item{"shim", levelFail, fmt.Sprintf("%v; install %s in a folder of containerd's PATH", err, shimProgram)}
	}
	if own := ownVersion(); v != own {
		return item{"shim", levelWarn, fmt.Sprintf("version %s, this program is %s; install both from one release", v, own)}
	}
	return item{"shim", levelOK, "version " + v}
}

// containerdVersion finds a version in what `containerd --version` prints, whose
// form distributions change.
var containerdVersion = regexp.MustCompile(`\bv?(\d+)\.(\d+)\.\d\S*`)

// Releases of containerd that were tried: 1.6 to 2.4.
func containerdKnown(major, minor int) bool {
	return major == 1 && minor >= 6 || major == 2 && minor <= 4
}

func (c *command) checkContainerd(ctx context.Context) item {
	out, err := c.output(ctx, "containerd", "--version")
	if err != nil {
		return item{"containerd", levelWarn, fmt.Sprintf("version unknown: %v; 1.6 to 2.4 are known to work", err)}
	}
	m := containerdVersion.FindStringSubmatch(out)
	if m == nil {
		return item{"containerd", levelWarn, fmt.Sprintf("version unknown: %q; 1.6 to 2.4 are known to work", strings.TrimSpace(out))}
	}
	major, _ := strconv.Atoi(m[1]) // digits; too many give a number too large
	minor, _ := strconv.Atoi(m[2])
	if !containerdKnown(major, minor) {
		return item{"containerd", levelWarn, fmt.Sprintf("version %s; 1.6 to 2.4 are known to work", m[0])}
	}
	return item{"containerd", levelOK, "version " + m[0]}
}

func (c *command) checkSocket(context.Context) item {
	if err := c.dial(c.address); err != nil {
		return item{"daemon", levelWarn, fmt.Sprintf("containerd does not answer: %v; start it, or name its socket with --address", err)}
	}
	return item{"daemon", levelOK, "containerd answers at " + c.address}
}

// checkCgroups says which form of metrics containers have.
func (c *command) checkCgroups(context.Context) item {
	dir := filepath.Join(c.files, "sys/fs/cgroup")
	if _, err := os.Stat(filepath.Join(dir, "cgroup.controllers")); err == nil {
		return item{"cgroups", levelOK, "version 2"}
	}
	if _, err := os.Stat(filepath.Join(dir, "memory")); err == nil {
		return item{"cgroups", levelOK, "version 1"}
	}
	return item{"cgroups", levelWarn, "none at /sys/fs/cgroup: host processes of containers are not limited; mount cgroup2 there"}
}

// features are system calls that the shim and its file service cannot do without.
var features = []struct{ name, since string }{{"openat2", "5.6"}, {"pidfd_open", "5.3"}, {"pidfd_send_signal", "5.1"}, {"close_range", "5.9"}}

func (c *command) checkFeatures(context.Context) item {
	var names []string
	for _, f := range features {
		if err := c.feature(f.name); err != nil {
			return item{"kernel", levelFail, fmt.Sprintf("no %s: %v; boot dom0 with Linux %s or newer", f.name, err, f.since)}
		}
		names = append(names, f.name)
	}
	return item{"kernel", levelOK, strings.Join(names, ", ")}
}

// checkOverlay looks for what containerd's usual snapshotter mounts.
func (c *command) checkOverlay(context.Context) item {
	data, err := os.ReadFile(filepath.Join(c.files, "proc/filesystems"))
	if err != nil {
		return item{"overlay", levelWarn, err.Error()}
	}
	for line := range strings.Lines(string(data)) {
		if strings.TrimSpace(strings.TrimPrefix(line, "nodev")) == "overlay" {
			return item{"overlay", levelOK, "overlay file systems for containerd's snapshots"}
		}
	}
	return item{"overlay", levelWarn, "no overlay file system: containerd falls back to copies; load it with `modprobe overlay`"}
}

func (c *command) checkDom0Memory(context.Context) item {
	free, err := readKB(filepath.Join(c.files, "proc/meminfo"), "MemAvailable")
	if err != nil {
		return item{"dom0", levelWarn, err.Error()}
	}
	text := mib(free) + " of memory available to dom0's programs"
	if free < lowDom0 {
		return item{"dom0", levelWarn, text + ", and each container's shim takes about 20 MB; give dom0 more with dom0_mem="}
	}
	return item{"dom0", levelOK, text}
}
