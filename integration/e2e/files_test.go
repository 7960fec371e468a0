// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// TestDirtyMapping: what a process changed in a mapped file, and never synced,
// is in the snapshot after its end.
func TestDirtyMapping(t *testing.T) {
	s := begin(t)
	s.limit = longLimit
	// Every page gets its own number, so that a page in the wrong place shows.
	const program = `
import mmap, os
f = open("/big", "w+b")
f.truncate(50 << 20)
m = mmap.mmap(f.fileno(), 0)
for i in range(0, 50 << 20, 4096):
    m[i:i+8] = (i * 2654435761 % (1 << 64)).to_bytes(8, "little")
    m[i+4088:i+4096] = i.to_bytes(8, "big")
os._exit(3)
`
	const sum = `
import hashlib
h = hashlib.sha256()
for i in range(0, 50 << 20, 4096):
    h.update((i * 2654435761 % (1 << 64)).to_bytes(8, "little") + bytes(4080) + i.to_bytes(8, "big"))
print(h.hexdigest())
`
	want := s.run("", python, "python3", "-c", sum)
	s.wantCode(want, 0)
	id := s.id()
	s.Cleanup(func() { s.remove(id) })
	s.wantCode(s.sh(fmt.Sprintf("exec $RUN %s %s %s", python, id, quote("python3", "-c", program))), 3)
	got := s.inSnapshot(id, "sha256sum <$1/big | cut -d' ' -f1")
	s.want(got, 0, want.stdout)
}

// inSnapshot runs script on the host with the container's snapshot mounted at $1.
func (s *story) inSnapshot(id, script string) result {
	s.Helper()
	return s.sh(fmt.Sprintf(`
set -e
dir=$(mktemp -d)
trap 'umount $dir; rmdir $dir' EXIT
eval "$(ctr snapshots mounts $dir %s)"
set -- $dir
(%s
)`, id, script))
}

// TestSnapshotContents: what a container did to its files is in the snapshot,
// with its owners, modes and times, and nothing else.
func TestSnapshotContents(t *testing.T) {
	s := begin(t)
	id := s.id()
	s.Cleanup(func() { s.remove(id) })
	r := s.sh(fmt.Sprintf("exec $RUN $B %s sh -c %s", id, quote(`
cd /tmp && umask 027
echo text >file && chown 12:34 file && chmod 6751 file && touch -d @1000000000 file
mkdir -p d/e && ln -s ../../tmp/file d/e/link && ln file d/hard && mkfifo fifo
mv d/e d/moved && echo gone >gone && rm gone && rm /etc/group`)))
	s.wantCode(r, 0)
	s.want(s.inSnapshot(id, `cd $1/tmp
stat -c '%n %U:%G %u:%g %a %h %Y' file | sed 's/ [a-zA-Z]*:[a-zA-Z]*//'
cat d/hard; readlink d/moved/link; stat -c '%F %a' fifo; ls
[ ! -e ../etc/group ] && echo removed`), 0,
		"file 12:34 6751 2 1000000000\ntext\n../../tmp/file\nfifo 640\nd\nfifo\nfile\nremoved\n")
}

// TestWalk: a walk over 6,000 files ends right, and leaves the back-end with
// a bounded number of open descriptors.
func TestWalk(t *testing.T) {
	s := begin(t)
	s.limit = longLimit
	s.Cleanup(func() { s.sh("rm -rf /var/tmp/e2e-walk") })
	s.wantCode(s.sh(`
rm -rf /var/tmp/e2e-walk; mkdir /var/tmp/e2e-walk && cd /var/tmp/e2e-walk
for d in $(seq 10); do mkdir $d; (cd $d && seq 600 | xargs touch); done`), 0)
	id := s.start("--mount type=bind,src=/var/tmp/e2e-walk,dst=/walk,options=rbind:ro", busybox, "sleep", "1000")
	before := s.descriptors(id)
	s.want(s.exec("", id, "sh", "-c", "find /walk -type f -size -1 | wc -l"), 0, "6000\n")
	s.want(s.exec("", id, "sh", "-c", "cat /walk/1*/1* | wc -c; ls -l /walk/2*/2* | wc -l"), 0, "0\n111\n")
	after := s.descriptors(id)
	t.Logf("open descriptors of the container's host processes: %d before the walk, %d after it", before, after)
	const bound = 4096
	if after > bound {
		s.Errorf("%d descriptors open after a walk over 6,000 files, want at most %d", after, bound)
	}
}

// descriptors counts the open descriptors of the host processes that serve a
// container: its shim, and the processes the shim started.
func (s *story) descriptors(id string) int {
	s.Helper()
	r := s.sh(`
n=0
for pid in $(` + shimPids(id) + `); do n=$((n + $(ls /proc/$pid/fd | wc -l))); done
echo $n`)
	n, err := strconv.Atoi(strings.TrimSpace(r.stdout))
	if err != nil || n == 0 {
		s.Fatalf("count descriptors: %v, %v", err, r)
	}
	return n
}

// shimPids is a command that prints the pids of the shim of id (first) and of
// its descendants.
func shimPids(id string) string {
	return `shim=$(for p in /proc/[0-9]*; do
	case "$(tr '\0' ' ' <$p/cmdline 2>/dev/null)" in *containerd-shim-*"-id ` + id + ` "*) echo ${p#/proc/}; break;; esac
done)
[ -n "$shim" ] && awk -v top=$shim '
	{parent[$1] = $4}
	END {
		print top
		for (p in parent) for (q = p; q > 1; q = parent[q]) if (parent[q] == top) {print p; break}
	}' /proc/[0-9]*/stat 2>/dev/null`
}

// TestEscapes: names and links that lead out of an export lead nowhere.
func TestEscapes(t *testing.T) {
	s := begin(t)
	s.Cleanup(func() { s.sh("rm -rf /var/tmp/e2e-canary /var/tmp/e2e-export") })
	secret := fmt.Sprintf("secret-%d", started.UnixNano())
	s.wantCode(s.sh(`
rm -rf /var/tmp/e2e-canary /var/tmp/e2e-export
mkdir -p /var/tmp/e2e-canary/dir /var/tmp/e2e-export/dir && cd /var/tmp/e2e-export
echo `+secret+` | tee /var/tmp/e2e-canary/file >/var/tmp/e2e-canary/dir/file
echo inside >inside
ln -s ../e2e-canary/file up
ln -s /var/tmp/e2e-canary/file absolute
ln -s /var/tmp/e2e-canary/dir dirlink
ln -s chain2 chain1; ln -s chain3 chain2; ln -s ../../../../../../var/tmp/e2e-canary/file chain3
ln -s loop2 loop1; ln -s loop1 loop2
ln -s /proc/self/root magic
mknod node b 7 0; mknod zero c 1 5; mkfifo fifo
touch "$(printf 'odd\nname \377 %%s')"`), 0)
	id := s.start("--mount type=bind,src=/var/tmp/e2e-export,dst=/x,options=rbind:rw", busybox, "sleep", "1000")
	// Each line is tried for itself; no open may hang on the fifo.
	r := s.exec("", id, "sh", "-c", `cd /x
for n in up absolute dirlink/file chain1 loop1 magic/var/tmp/e2e-canary/file \
	../var/tmp/e2e-canary/file ../../var/tmp/e2e-canary/file dir/../../../var/tmp/e2e-canary/file; do
	cat "$n" 2>&1; { echo overwritten >"$n"; } 2>/dev/null; mkdir -p "$(dirname "$n")" 2>/dev/null
	rm -f dirlink/file; mv inside "$n/moved" 2>/dev/null; ln "$n" hard 2>/dev/null && cat hard
done
for n in node fifo; do timeout 3 head -c 64 $n 2>&1; timeout 3 sh -c "echo x >$n" 2>&1; done
ln /etc/passwd /x/across 2>/dev/null && echo "hard link between two exports"
ln -s /var/tmp/e2e-canary /x/made && cat /x/made/file
mv /x/dir /x/dir2 && ln -s /var/tmp/e2e-canary/dir /x/dir && cat /x/dir/file
mkfifo newfifo && { (echo through the fifo >newfifo) & cat newfifo; }
mknod newnode b 7 0 && timeout 3 head -c 64 newnode >/dev/null 2>&1
mknod newzero c 1 5 && head -c 3 newzero | wc -c
ls | grep -c odd
echo end`)
	s.wantCode(r, 0)
	if strings.Contains(r.stdout+r.stderr, secret) {
		s.Errorf("the container read what lies outside: %v", r)
	}
	for _, want := range []string{"through the fifo\n", "\n1\nend\n"} {
		if !strings.Contains(r.stdout, want) {
			s.Errorf("want %q in %v", want, r)
		}
	}
	if strings.Contains(r.stdout, "hard link between two exports") {
		s.Errorf("a hard link joins two exports")
	}
	s.want(s.sh("cd /var/tmp/e2e-canary && find . | sort && cat file dir/file"), 0,
		".\n./dir\n./dir/file\n./file\n"+secret+"\n"+secret+"\n")
	// The shim and its back-end are as they were: the container still works.
	s.want(s.exec("", id, "echo", "works"), 0, "works\n")
}

// TestEscapesInRoot: an image whose links lead out gets the runtime to make
// and mount nothing outside the container.
func TestEscapesInRoot(t *testing.T) {
	s := begin(t)
	s.Cleanup(func() { s.sh("rm -rf /var/tmp/e2e-canary") })
	s.wantCode(s.sh(`rm -rf /var/tmp/e2e-canary; mkdir /var/tmp/e2e-canary && cd /var/tmp/e2e-canary && echo secret >file`), 0)
	const list = "ls -A /var/tmp/e2e-canary; cat /var/tmp/e2e-canary/file"
	const flags = "--mount type=bind,src=/var/tmp/e2e-canary/file,dst=/mnt/deep/file,options=bind:ro " +
		"--mount type=tmpfs,src=tmpfs,dst=/up/scratch --cwd /absolute/cwd"
	r := s.run(flags, escapeImage, "sh", "-c", "cat /mnt/deep/file; pwd; echo x >/up/scratch/f && echo y >/run/f && cat /up/scratch/f /run/f")
	if r.code == 0 {
		// The links were followed within the container, as a shell there would.
		s.want(r, 0, "secret\n/var/tmp/e2e-canary/cwd\nx\ny\n")
	} else {
		s.Logf("refused: %v", r)
	}
	s.want(s.sh(list), 0, "file\nsecret\n")
}
