// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// snapDir is the folder of a daemon of its own, whose snapshotters make block
// images.
const snapDir = "/var/tmp/e2e-snap"

// snapDaemon starts it, with the configuration of the machine's but for what is
// written here, and imports busybox for both snapshotters. The erofs differ needs
// a newer mkfs.erofs than Debian 12 has; without it the snapshotter makes its
// layers from directories.
const snapDaemon = `set -e
mkdir -p ` + snapDir + ` && cd ` + snapDir + `
truncate -s 48M scratch.ext4 && mke2fs -q -t ext4 scratch.ext4 >&2
cat >config.toml <<END
version = 3
root = "` + snapDir + `/root"
state = "/run/e2e-snap"
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri",
	"io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
address = "/run/e2e-snap/sock"
[plugins."io.containerd.snapshotter.v1.blockfile"]
scratch_file = "` + snapDir + `/scratch.ext4"
fs_type = "ext4"
[plugins."io.containerd.snapshotter.v1.erofs"]
default_size = "64MB"
[plugins."io.containerd.service.v1.diff-service"]
default = ["walking"]
END
setsid containerd --config config.toml >log 2>&1 </dev/null &
echo $! >pid
export CONTAINERD_ADDRESS=/run/e2e-snap/sock
n=0; until ctr version >/dev/null 2>&1; do n=$((n+1)); [ $n -lt 100 ] || { cat log; exit 1; }; sleep 0.3; done
CONTAINERD_ADDRESS= ctr -a /run/containerd/containerd.sock images export --local --platform linux/amd64 image.tar %[1]s
ctr images import --no-unpack image.tar >/dev/null`

// TestSnapshotters: ctr run with the snapshotters whose snapshots are block
// images. The container has them as disks; the host mounts none while it runs.
func TestSnapshotters(t *testing.T) {
	if !xen() {
		t.Skip("runc mounts everything on the host")
	}
	s := begin(t)
	s.limit = longLimit
	s.Cleanup(func() {
		s.sh("kill $(cat " + snapDir + "/pid); n=0; while [ -e /proc/$(cat " + snapDir + `/pid) ] && [ $n -lt 50 ]; do n=$((n+1)); sleep 0.2; done
rm -rf ` + snapDir + " /run/e2e-snap")
	})
	if r := s.sh(fmt.Sprintf(snapDaemon, busybox)); r.code != 0 {
		s.Fatalf("the daemon: %v", r)
	}
	for _, c := range []struct{ snapshotter, fs string }{{"blockfile", "ext4"}, {"erofs", "overlay"}} {
		s.sub(c.snapshotter, func(s *story) {
			id := s.id()
			r := s.sh(fmt.Sprintf(`export CONTAINERD_ADDRESS=/run/e2e-snap/sock
$RUN -d --snapshotter %[1]s $B %[2]s sh -c 'awk "\$2 == \"/\" {print \$3}" /proc/mounts | tail -n 1 >/new; sleep 1000' || exit
mount | grep /run/e2e-snap/io.containerd.runtime
ctr task exec --exec-id x %[2]s sh -c 'until [ -s /new ]; do sleep 0.1; done; cat /new; ls /sys/block | grep -c vd; echo more >/more; sync' || exit
ctr task rm -f %[2]s || exit
$RUN --rm --snapshotter %[1]s $B %[2]s-2 ls -d /new
ctr snapshots --snapshotter %[1]s ls | grep -c %[2]s
ctr c rm %[2]s`, c.snapshotter, id))
			t.Logf("%v", r)
			lines := strings.Split(r.stdout, "\n")
			if r.code != 0 || len(lines) < 3 || lines[0] != c.fs || lines[1] == "0" || lines[2] != "1" {
				s.Errorf("want root on %s, some disks, one snapshot; got %v", c.fs, r)
			}
			if !strings.Contains(r.stderr, "/new: No such file") {
				s.Errorf("a second container of the image has what the first wrote: %v", r)
			}
		})
	}
}
