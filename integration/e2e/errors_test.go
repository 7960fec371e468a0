// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/inputs"
	"github.com/xcontainer/xcontainer/integration/internal/labrun"
)

// oneSentence wants r to have failed with a single line that has all of parts.
func (s *story) oneSentence(r result, parts ...string) {
	s.Helper()
	s.wantError(r, parts...)
	var lines []string
	for line := range strings.Lines(r.stderr) {
		// ctr tells of its own clean-up with a time stamp.
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "time=") {
			lines = append(lines, line)
		}
	}
	if len(lines) != 1 || !strings.HasPrefix(lines[0], "ctr: ") {
		s.Errorf("want one line from ctr, got %q", lines)
	}
}

// TestRefusals: what we cannot do yet fails Create, by name.
func TestRefusals(t *testing.T) {
	onXen(t)
	s := begin(t)
	for _, c := range []struct {
		name, flags string
		parts       []string
	}{
		{"mount type", "--mount type=nfs,src=server:/x,dst=/mnt,options=ro", []string{`nfs`, "/mnt", "not supported by X-Containers"}},
		{"namespace path", "--with-ns ipc:/proc/1/ns/ipc", []string{"ipc", "/proc/1/ns/ipc", "not supported by X-Containers"}},
		{"host network", "--net-host", []string{"network", "not supported by X-Containers"}},
	} {
		s.sub(c.name, func(s *story) { s.oneSentence(s.run(c.flags, busybox, "true"), c.parts...) })
	}
	s.sub("AppArmor is only logged", func(s *story) {
		s.want(s.run("--apparmor-profile some-profile", busybox, "echo", "runs"), 0, "runs\n")
	})
}

// TestBrokenInput: each fault on the way to a container is one sentence that
// names the object and what to do.
func TestBrokenInput(t *testing.T) {
	onXen(t)
	s := begin(t)
	const share = labrun.Payload + "/share/xcontainer/"
	const kernel, kernelUP, initramfs = share + "vmlinux", share + "vmlinux-up", share + "initramfs.cpio"
	for _, c := range []struct {
		name, before, after, flags string
		parts                      []string
	}{
		{"missing kernel", "mv " + kernel + " /var/tmp/e2e-hidden", "mv /var/tmp/e2e-hidden " + kernel, "",
			[]string{kernel, "make libos", "XCONTAINER_SHARE"}},
		{"missing kernel for one virtual CPU", "mv " + kernelUP + " /var/tmp/e2e-hidden", "mv /var/tmp/e2e-hidden " + kernelUP,
			"--annotation io.xcontainer.vcpus=1", []string{kernelUP, "make libos", "XCONTAINER_SHARE"}},
		{"missing initramfs", "mv " + initramfs + " /var/tmp/e2e-hidden", "mv /var/tmp/e2e-hidden " + initramfs, "",
			[]string{initramfs, "make libos", "XCONTAINER_SHARE"}},
		{"kernel that is none", "mv " + kernel + " /var/tmp/e2e-hidden; echo text >" + kernel, "mv /var/tmp/e2e-hidden " + kernel, "",
			[]string{kernel}},
		{"no memory left", "", "", fmt.Sprintf("--memory-limit %d", 500<<30),
			[]string{"not enough free memory in Xen"}},
		{"memory limit out of range", "", "", fmt.Sprintf("--memory-limit %d", 5000<<30), []string{"memory limit"}},
		{"bad annotation", "", "", "--annotation io.xcontainer.memory=much", []string{"io.xcontainer.memory", "much"}},
		{"bad mode of X-LibOS", "", "", "--annotation io.xcontainer.xlibos=fast", []string{"io.xcontainer.xlibos", "fast", "full, entry nor off"}},
	} {
		s.sub(c.name, func(s *story) {
			if c.before != "" {
				s.Cleanup(func() { s.wantCode(s.sh(c.after), 0) })
				s.wantCode(s.sh(c.before), 0)
			}
			s.oneSentence(s.run(c.flags, busybox, "true"), c.parts...)
		})
	}
	s.sub("missing root file system", func(s *story) {
		r := s.sh("exec $RUN --rm --rootfs /no/such/root " + s.id() + " true")
		s.oneSentence(r, "/no/such/root", "does not exist")
	})
	s.sub("configuration without a process", func(s *story) {
		r := s.sh(`f=$(mktemp)
echo '{"ociVersion": "1.1.0", "root": {"path": "/var/tmp"}, "linux": {}}' >$f
$RUN --rm --config $f ` + s.id() + `; code=$?; rm -f $f; exit $code`)
		s.oneSentence(r, "config.json", "process is missing")
	})
	s.sub("works again", func(s *story) { s.want(s.run("", busybox, "echo", "works"), 0, "works\n") })
}

// TestNoXen: on a machine without Xen a container fails with a sentence that
// says so. It runs here, with a containerd of its own, and not in the lab.
func TestNoXen(t *testing.T) {
	onXen(t)
	if _, err := os.Stat("/sys/hypervisor/type"); err == nil {
		t.Skip("this machine runs on a hypervisor that may be Xen; the lab's dom0 has Xen for sure")
	}
	if os.Geteuid() != 0 {
		t.Skip("containerd needs root; run the tests as root for this one")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c, err := cache.Open("")
	if err != nil {
		t.Fatal(err)
	}
	built := inputs.NewBuilder(c, nil)
	programs, err := built.Containerd(ctx)
	if err != nil {
		t.Fatal(err)
	}
	images, _, err := built.Images(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	shim, err := filepath.Abs("../../build/payload/bin/containerd-shim-xcontainer-v2")
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{filepath.Join(programs, "containerd"), filepath.Join(programs, "ctr"), shim} {
		if err := os.Symlink(program, filepath.Join(bin, filepath.Base(program))); err != nil {
			t.Fatal(err)
		}
	}
	h, err := startPlainHost(ctx, dir, bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	s := &story{T: t, m: h, limit: 3 * time.Minute}
	s.wantCode(s.sh("ctr images import --local "+filepath.Join(images, inputs.ImagesFile)+" >/dev/null"), 0)
	before, err := host(h).Take()
	if err != nil {
		t.Fatal(err)
	}
	s.oneSentence(s.run("", busybox, "true"), "no Xen", "boot the machine with Xen 4.17 to 4.20")
	checkLeaks(t, h, before, settle)
	clean = nil // of another machine
}
