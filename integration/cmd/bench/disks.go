// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/labrun"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// How a root file system on an ext4 image comes into the guest, by the values of
// the annotation that chooses.
const (
	asDisk  = "guest" // as a virtio block device
	asFiles = "host"  // mounted in dom0, by virtio-fs
)

// diskWork is what is timed, in the container.
var diskWork = []struct{ name, script string }{
	{"read 48 MiB", `cat /data/random >/dev/null`},
	{"read 2,000 small files", `find /many -type f | xargs cat >/dev/null`},
	{"list 2,000 files with attributes", `find /many -size +9 | wc -l >/dev/null`},
	{"write 16 MiB, fsync", `dd if=/dev/zero of=/data/written bs=1M count=16 conv=fsync 2>/dev/null`},
}

// makeImage makes the image in dom0, with a static busybox.
const makeImage = `set -e
mkdir -p DIR/root && cd DIR/root
mkdir -p bin etc proc sys dev tmp run data many
cp "$(command -v busybox)" bin/busybox
for a in cat cut dd find sh wc xargs; do ln -sf busybox bin/$a; done
for d in $(seq 20); do mkdir -p many/$d; for f in $(seq 100); do echo $f >many/$d/$f; done; done
dd if=/dev/urandom of=data/random bs=1M count=48 2>/dev/null
cd ..; mke2fs -q -t ext4 -d root image 128M >&2; sync; cat image >/dev/null`

// measureDisks times the same work on the same image both ways, by turns. The
// page cache of each guest is empty, that of dom0 is not.
func measureDisks(ctx context.Context, l *lab.Lab, runs int) (string, error) {
	dir := fmt.Sprintf("/var/tmp/bench-%d", time.Now().UnixMilli())
	defer l.Run(context.WithoutCancel(ctx), "rm -rf "+dir, nil)
	if _, err := in(ctx, l, strings.ReplaceAll(makeImage, "DIR", dir)); err != nil {
		return "", err
	}
	if err := putDiskrun(ctx, l, dir+"/diskrun"); err != nil {
		return "", err
	}
	var script strings.Builder
	script.WriteString(`now() { cut -d" " -f1 /proc/uptime; }` + "\n")
	for _, w := range diskWork {
		script.WriteString("now; " + w.script + "; now\n")
	}
	mounts := fmt.Sprintf(`[{"Type":"ext4","Source":"%s/image","Options":["loop","rw"]}]`, dir)
	times := map[string][][]time.Duration{asDisk: make([][]time.Duration, len(diskWork)), asFiles: make([][]time.Duration, len(diskWork))}
	for n := -1; n < runs; n++ { // the first turn does not count
		for _, how := range []string{asFiles, asDisk} {
			line := lab.Quote(dir+"/diskrun", ours, fmt.Sprintf("bench-%d-%s", n+1, how), mounts, "io.xcontainer.disks="+how, "--", "sh", "-c", script.String())
			out, err := in(ctx, l, line)
			if err != nil {
				return "", err
			}
			for i := range diskWork {
				d, err := between(out, i)
				if err != nil {
					return "", err
				}
				if n >= 0 {
					times[how][i] = append(times[how][i], d)
				}
			}
		}
		fmt.Fprintf(os.Stderr, "\rbench: %d of %d", n+1, runs)
	}
	fmt.Fprintln(os.Stderr)
	return diskTable(times, runs), nil
}

// in runs a command in dom0 that has to succeed.
func in(ctx context.Context, l *lab.Lab, line string) (string, error) {
	r, err := l.Run(ctx, "PATH="+labrun.Payload+"/bin:$PATH\n"+line, nil)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("exit code %d: %s", r.Code, r.Stderr)
	}
	return string(r.Stdout), err
}

// putDiskrun builds the end-to-end tests' program for such containers.
func putDiskrun(ctx context.Context, l *lab.Lab, path string) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "diskrun")
	if err := labrun.Build(ctx, "", bin, "github.com/xcontainer/xcontainer/integration/e2e/diskrun"); err != nil {
		return err
	}
	return l.CopyTo(ctx, bin, path)
}

// between is the time between the stamps before and after work i.
func between(out string, i int) (time.Duration, error) {
	lines := strings.Fields(out)
	if len(lines) != 2*len(diskWork) {
		return 0, fmt.Errorf("%d times in %q, want %d", len(lines), out, 2*len(diskWork))
	}
	from, err1 := strconv.ParseFloat(lines[2*i], 64)
	to, err2 := strconv.ParseFloat(lines[2*i+1], 64)
	if err1 != nil || err2 != nil || to < from {
		return 0, fmt.Errorf("no times in %q", out)
	}
	return time.Duration((to - from) * float64(time.Second)), nil
}

func diskTable(times map[string][][]time.Duration, runs int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-34s %12s %12s %8s   (milliseconds, medians of %d runs)\n", "", "virtio-blk", "virtio-fs", "ratio", runs)
	for i, w := range diskWork {
		disk, files := quantile(times[asDisk][i], 1, 2), quantile(times[asFiles][i], 1, 2)
		fmt.Fprintf(&b, "%-34s %12.0f %12.0f %8.2f\n", w.name, ms(disk), ms(files), float64(disk)/float64(max(1, files)))
	}
	return b.String()
}
