// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// diskDir holds the block images of a story on the machine under test.
const (
	diskDir  = "/var/tmp/e2e-disks"
	diskBase = programs + "/disks" // what they are copies of
)

// imageMount is a mount of a root file system as a snapshotter gives it.
type imageMount struct {
	Type, Source string
	Options      []string
}

// makeDisks makes, once, base.ext4, with a busybox and 1 MB of data, the same as a
// layer base.erofs, another top.erofs, and an empty rw.ext4.
var makeDisks = sync.OnceValue(func() error {
	return must(nil, "sh", "-c", `set -e
rm -rf `+diskBase+`; mkdir -p `+diskBase+`; cd `+diskBase+`
mkdir -p root/bin root/etc root/proc root/sys root/dev root/tmp root/run root/data top/etc
cp "$(command -v busybox)" root/bin/busybox
for a in awk cat dd dirname echo find grep ls md5sum mknod rm sh sleep sort stat sync tail touch tr true wc xargs cut; do
	ln -s busybox root/bin/$a
done
echo 'root:x:0:0::/:/bin/sh' >root/etc/passwd
echo base | tee root/etc/name >root/data/file; echo top >top/etc/name
dd if=/dev/urandom of=root/data/random bs=1M count=1 2>/dev/null
mke2fs -q -t ext4 -d root base.ext4 64M >&2
mke2fs -q -t ext4 rw.ext4 32M >&2
mkfs.erofs --quiet base.erofs root >&2
mkfs.erofs --quiet top.erofs top >&2`)
})

// disks begins a story with block images of its own.
func disks(t *testing.T) *story {
	t.Helper()
	s := begin(t)
	s.limit = longLimit
	s.Cleanup(func() { s.wantLoopFree(); s.sh("rm -rf " + diskDir) })
	if err := makeDisks(); err != nil {
		t.Fatal(err)
	}
	s.wantCode(s.sh("rm -rf "+diskDir+" && cp -r --sparse=always "+diskBase+" "+diskDir), 0)
	return s
}

func image(name string, options ...string) imageMount {
	kind := name[strings.LastIndexByte(name, '.')+1:]
	return imageMount{kind, diskDir + "/" + name, append([]string{"loop"}, options...)}
}

// layers are the mounts of containerd's erofs snapshotter for a container.
func layers() []imageMount {
	return []imageMount{
		image("rw.ext4", "rw"), image("top.erofs", "ro"), image("base.erofs", "ro"),
		{"format/mkdir/overlay", "overlay", []string{
			"X-containerd.mkdir.path={{ mount 0 }}/upper:0755",
			"X-containerd.mkdir.path={{ mount 0 }}/work:0755",
			"workdir={{ mount 0 }}/work", "upperdir={{ mount 0 }}/upper", "lowerdir={{ overlay 1 2 }}",
		}},
	}
}

// diskCommand is the command line that runs a shell script on a root file system
// of these mounts.
func (s *story) diskCommand(mounts []imageMount, annotation, script string) string {
	b, err := json.Marshal(mounts)
	if err != nil {
		s.Fatal(err)
	}
	argv := []string{diskrun, runtimeName, s.id(), string(b)}
	if annotation != "" {
		argv = append(argv, annotation)
	}
	return quote(append(argv, "--", "sh", "-c", script)...)
}

func (s *story) onDisks(mounts []imageMount, script string) result {
	s.Helper()
	return s.sh("exec " + s.diskCommand(mounts, "", script))
}

// wantClean fails the test unless the ext4 image has no errors and needs no
// recovery.
func (s *story) wantClean(name string) {
	s.Helper()
	r := s.sh(`cd ` + diskDir + ` && e2fsck -fn ` + name + ` 2>&1 && dumpe2fs -h ` + name + ` 2>/dev/null | grep -E "^Filesystem (state|features)"`)
	if r.code != 0 || !strings.Contains(r.stdout, "clean") || strings.Contains(r.stdout, "needs_recovery") {
		s.Errorf("%s is not clean: %v", name, r)
	}
}

// wantLoopFree fails the test if a loop device is in use.
func (s *story) wantLoopFree() {
	s.Helper()
	if r := s.sh("losetup -a | grep e2e-disks"); r.stdout != "" {
		s.Errorf("loop devices are left: %v", r)
	}
}

// TestDiskRoot: a container on an ext4 image; what it wrote is in the image, and
// the image is clean.
func TestDiskRoot(t *testing.T) {
	s := disks(t)
	r := s.onDisks([]imageMount{image("base.ext4", "rw")}, `
md5sum </data/random; cat /data/file
echo written >/data/new; sync /data/new; dd if=/data/random of=/data/copy bs=64k conv=fsync 2>/dev/null
echo unsynced >/data/late
awk '$2 == "/" {print $1, $3}' /proc/mounts | tail -n 1
exit 7`)
	s.wantCode(r, 7)
	sum := s.sh("md5sum <" + diskDir + "/root/data/random").stdout
	lines := strings.SplitAfter(r.stdout, "\n")
	if len(lines) < 3 || lines[0] != sum || lines[1] != "base\n" || !strings.HasSuffix(lines[2], " ext4\n") {
		s.Errorf("the container read %v, want %q", r, sum)
	}
	if xen() && !strings.Contains(r.stdout, "/dev/vda ext4\n") {
		s.Errorf("the root is no disk: %v", r)
	}
	s.wantClean("base.ext4")
	s.want(s.sh(`cd `+diskDir+`
for f in new late; do debugfs -R "cat /data/$f" base.ext4 2>/dev/null; done
debugfs -R "cat /data/copy" base.ext4 2>/dev/null | md5sum`), 0, "written\nunsynced\n"+sum)
}

// TestDiskReadOnly: an image that is mounted read-only does not change, whatever
// the container does.
func TestDiskReadOnly(t *testing.T) {
	s := disks(t)
	before := s.sh("md5sum <" + diskDir + "/base.ext4").stdout
	script := `touch /x 2>&1 | grep -o "Read-only file system"; cat /etc/name`
	want := "Read-only file system\nbase\n"
	if xen() { // the kernel is the container's own, and so is the device
		script += `
mknod /run/disk b $(tr : ' ' </sys/block/vda/dev); cat /sys/block/vda/ro
{ dd if=/dev/zero of=/run/disk bs=512 count=1 conv=notrunc,fsync; } 2>/dev/null && echo "written"`
		want += "1\n"
	}
	s.want(s.onDisks([]imageMount{image("base.ext4", "ro")}, script+"\ntrue"), 0, want)
	s.want(s.sh("md5sum <"+diskDir+"/base.ext4"), 0, before)
}

// TestDiskLayers: erofs layers and an ext4 image for writing, as an overlay. The
// host mounts nothing for it.
func TestDiskLayers(t *testing.T) {
	s := disks(t)
	const sums = "cd " + diskDir + " && md5sum base.erofs top.erofs"
	before := s.sh(sums).stdout
	script := `cat /etc/name /data/file; echo new >/etc/name; rm /data/file; echo x >/x; cat /etc/name; ls /data
awk '$2 == "/" {print $3}' /proc/mounts | tail -n 1; stat -c %a /`
	s.want(s.onDisks(layers(), script), 0, "top\nbase\nnew\nrandom\noverlay\n755\n")
	s.wantClean("rw.ext4")
	s.want(s.sh(sums), 0, before)
	s.want(s.sh(`cd `+diskDir+` && for f in etc/name x; do debugfs -R "cat /upper/$f" rw.ext4 2>/dev/null; done`), 0, "new\nx\n")
	// The second container sees what the first has left.
	if !xen() {
		return
	}
	r := s.sh(s.diskCommand(layers(), "", "cat /x; sleep 5") + ` &
for i in $(seq 200); do ls -l /proc/*/fd 2>/dev/null | grep -q rw.ext4 && break; sleep 0.2; done
sleep 2; losetup -a | grep e2e-disks; grep -E " (erofs|overlay|ext4) " /proc/mounts | grep -v " / "; wait $!`)
	s.want(r, 0, "x\n")
}

// TestDiskMany: as many disks as a domain can have, and one more, which the host
// mounts.
func TestDiskMany(t *testing.T) {
	if !xen() {
		t.Skip("runc mounts everything on the host")
	}
	s := disks(t)
	s.wantCode(s.sh(`set -e; cd `+diskDir+`
for n in $(seq 11); do mkdir -p l/layer; echo $n | tee l/layer/$n >l/layer/top; mkfs.erofs --quiet l$n.erofs l >/dev/null; rm -r l; done`), 0)
	for _, n := range []int{10, 11} {
		list := []imageMount{image("rw.ext4", "rw")}
		for i := range n {
			list = append(list, image(fmt.Sprintf("l%d.erofs", n-i), "ro"))
		}
		list = append(list, image("base.erofs", "ro"), layers()[3])
		list[n+2].Options[4] = fmt.Sprintf("lowerdir={{ overlay 1 %d }}", n+1)
		r := s.onDisks(list, `cat /layer/top /etc/name; ls /layer | wc -l; echo $(cat /layer/[0-9]* | sort -n); ls -d /sys/block/vd* 2>/dev/null | wc -l`)
		want := fmt.Sprintf("%d\nbase\n%d\n%s\n%d\n", n, n+1, strings.Trim(fmt.Sprint(seq(n)), "[]"), map[int]int{10: 12, 11: 0}[n])
		s.want(r, 0, want)
		s.wantClean("rw.ext4")
	}
}

func seq(n int) (list []int) {
	for i := range n {
		list = append(list, i+1)
	}
	return list
}

// TestDiskDiscard: what a container deletes on a disk that is mounted with
// discard takes no space in the image's file any more.
func TestDiskDiscard(t *testing.T) {
	s := disks(t)
	kib := func() int {
		r := s.sh("sync; du -k " + diskDir + "/base.ext4 | cut -f1")
		n, err := strconv.Atoi(strings.TrimSpace(r.stdout))
		if err != nil {
			s.Fatalf("size of the image: %v", r)
		}
		return n
	}
	list := []imageMount{image("base.ext4", "discard")}
	first := kib()
	s.wantCode(s.onDisks(list, "dd if=/dev/urandom of=/data/big bs=1M count=24 conv=fsync 2>/dev/null"), 0)
	full := kib()
	// ext4 discards after the commit and gives up what is left when it is
	// unmounted (fs/ext4/mballoc.c, ext4_discard_work). Field 14 counts sectors.
	s.wantCode(s.onDisks(list, `rm /data/big; sync
n=0; until [ "$(awk '{print $14}' /sys/block/vda/stat)" -ge $((24 << 11)) ] || [ $n -ge 50 ]; do n=$((n + 1)); sleep 0.2; done`), 0)
	last := kib()
	t.Logf("the image takes %d KiB, with 24 MiB more %d KiB, without them again %d KiB", first, full, last)
	if full < first+24<<10 || last > first+4<<10 {
		s.Errorf("the image takes %d KiB, with 24 MiB more %d KiB, without them again %d KiB", first, full, last)
	}
	s.wantClean("base.ext4")
}

// TestDiskInUse: two containers cannot write the same image, but read it.
func TestDiskInUse(t *testing.T) {
	if !xen() {
		t.Skip("runc's host has one file system for both")
	}
	s := disks(t)
	twice := func(first, second []imageMount) result {
		return s.sh(s.diskCommand(first, "", "sleep 20") + ` &
for i in $(seq 200); do ls -l /proc/*/fd 2>/dev/null | grep -q base && break; sleep 0.2; done
` + s.diskCommand(second, "", "cat /etc/name") + `
code=$?; wait; exit $code`)
	}
	rw, ro := []imageMount{image("base.ext4", "rw")}, []imageMount{image("base.erofs", "ro")}
	s.wantError(twice(rw, rw), "block image "+diskDir+"/base.ext4 is in use")
	s.want(twice(ro, ro), 0, "base\n")
	s.wantClean("base.ext4")
}

// TestDiskOnHost: what a guest cannot mount, and what it shall not, the host
// mounts as ever.
func TestDiskOnHost(t *testing.T) {
	if !xen() {
		t.Skip("runc mounts everything on the host")
	}
	s := disks(t)
	const script = `cat /etc/name; echo x >/new; awk '$2 == "/" {print $3}' /proc/mounts | tail -n 1`
	s.want(s.sh("exec "+s.diskCommand([]imageMount{image("base.ext4", "rw")}, "io.xcontainer.disks=host", script)), 0, "base\nvirtiofs\n")
	s.want(s.sh(`debugfs -R "cat /new" `+diskDir+`/base.ext4 2>/dev/null`), 0, "x\n")
	// The erofs snapshotter without images for writing.
	s.sh("mkdir " + diskDir + "/upper " + diskDir + "/work")
	list := layers()[1:]
	list[2].Options = []string{"workdir=" + diskDir + "/work", "upperdir=" + diskDir + "/upper", "lowerdir={{ overlay 0 1 }}"}
	s.want(s.onDisks(list, script), 0, "top\nvirtiofs\n")
	s.want(s.sh("cat "+diskDir+"/upper/new"), 0, "x\n")
	s.want(s.sh("exec "+s.diskCommand(layers(), "io.xcontainer.disks=host", script)), 0, "top\nvirtiofs\n")
	s.wantClean("rw.ext4")
}

// TestDiskErrors: what is no image is refused with its name, and nothing is left.
func TestDiskErrors(t *testing.T) {
	if !xen() {
		t.Skip("the words are ours")
	}
	s := disks(t)
	s.sh("cd " + diskDir + " && mkfifo fifo.ext4 && truncate -s 1M zero.ext4 && : >empty.ext4 && head -c 100000 base.erofs >cut.erofs")
	for _, c := range []struct {
		name  string
		list  []imageMount
		parts []string
	}{
		{"missing", []imageMount{image("none.ext4")}, []string{"block image " + diskDir + "/none.ext4", "no such file or directory"}},
		{"fifo", []imageMount{image("fifo.ext4")}, []string{"fifo.ext4 is neither a regular file nor a block device"}},
		{"empty", []imageMount{image("empty.ext4")}, []string{"empty.ext4 is empty"}},
		{"no file system", []imageMount{image("zero.ext4")}, []string{"root file system, mount 0 (ext4)"}},
		{"an option", []imageMount{image("base.ext4", "tomato")}, []string{"mount 0 (ext4)", "tomato"}},
		{"dm-verity", []imageMount{image("base.erofs", "X-containerd.dmverity=/x")}, []string{"dmverity_mode"}},
	} {
		s.sub(c.name, func(s *story) { s.wantError(s.onDisks(c.list, "true"), c.parts...) })
	}
	// A damaged layer fails the reads of what is missing, and nothing else.
	if r := s.onDisks([]imageMount{image("cut.erofs", "ro")}, "true"); r.code == 0 {
		s.Errorf("half an image runs: %v", r)
	}
	s.wantClean("base.ext4")
}
