// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
	"github.com/xcontainer/xcontainer/integration/internal/inputs"
)

// bakeVersion changes when the script below leaves another disk.
const bakeVersion = "v1"

// shutdownLimit is how long a machine may take to turn itself off.
const shutdownLimit = 60 * time.Second

// bakeScript imports the images into containerd, so that later boots find them
// unpacked, and makes the index without which modprobe finds nothing. The file for other platforms has nothing to unpack here.
const bakeScript = `set -e
depmod
mkdir /run/lab/images
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000 images /run/lab/images
ctr images import /run/lab/images/` + inputs.ImagesFile + `
ctr images import --all-platforms --no-unpack /run/lab/images/` + inputs.OtherImagesFile + `
umount /run/lab/images
rm -f /var/log/*.log`

// bake returns a disk with containerd's images in it: the dom0's disk after a
// boot without Xen that imported them. It is kept in the cache.
func bake(ctx context.Context, c *cache.Cache, o Options, d *inputs.Dom0, images string, imagesKey cache.Key) (string, error) {
	key := cache.KeyOf(bakeVersion, bakeScript, string(d.Key), string(imagesKey))
	dir, err := c.Dir(ctx, "disk", key, func(ctx context.Context, dir string) error {
		o.Progress("import the images into the dom0's disk")
		disk := filepath.Join(dir, "disk")
		// cp keeps the holes of the 8 GB image.
		if out, err := exec.CommandContext(ctx, "cp", "--sparse=always", "--reflink=auto", d.Disk, disk).CombinedOutput(); err != nil {
			return fmt.Errorf("lab: copy disk: %w: %s", err, bytes.TrimSpace(out))
		}
		// The machine's state is beside the entry and not in it, so that a
		// machine which outlived an earlier, killed build is found and ended.
		work := filepath.Join(c.Root(), "import", string(key))
		if s, err := readState(work); err == nil {
			if err := down(work, s); err != nil {
				return err
			}
		}
		payload := filepath.Join(work, "payload")
		if err := os.MkdirAll(payload, 0o700); err != nil {
			return fmt.Errorf("lab: import images: %w", err)
		}
		o.NoXen, o.PTI = true, ""
		m := machine{
			kvm: haveKVM(), memMB: 2048, cpus: DefaultCPUs, payload: payload,
			keepDisk: true, shares: map[string]string{"images": images},
		}
		files := map[string]string{"vmlinuz": d.Kernel, "initrd": d.Initrd, "disk": disk}
		l, err := boot(ctx, o, work, m, files)
		if err != nil {
			return err
		}
		if err := l.importImages(ctx); err != nil {
			return errors.Join(err, l.Down())
		}
		if err := os.RemoveAll(work); err != nil {
			return fmt.Errorf("lab: import images: %w", err)
		}
		return nil
	})
	return filepath.Join(dir, "disk"), err
}

// importImages runs the script and turns the machine off.
func (l *Lab) importImages(ctx context.Context) error {
	if err := l.must(ctx, bakeScript); err != nil {
		return fmt.Errorf("lab: import images: %w", err)
	}
	return l.powerOff(ctx)
}

// powerOff shuts dom0 down in order and waits until the machine has ended.
func (l *Lab) powerOff(ctx context.Context) error {
	// The connection may end before the answer comes.
	if _, err := l.Run(ctx, "busybox poweroff", nil); err != nil && l.state.alive() && ctx.Err() != nil {
		return err
	}
	deadline := time.Now().Add(shutdownLimit)
	for l.state.alive() {
		if time.Now().After(deadline) {
			return fmt.Errorf("lab: shut down: the machine still runs after %v", shutdownLimit)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lab: shut down: %w", context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
	l.client.Close() // its machine is gone
	return nil
}
