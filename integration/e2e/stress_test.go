// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// stressProgram reads and writes 32 files in 32 threads, runs 16 processes,
// and copies its standard input to its standard output, all at once. Each part
// checks its own bytes. It fails with a line on standard error.
const stressProgram = `
import hashlib, os, subprocess, sys, threading
errors = []
def guarded(f):
    def run(*a):
        try:
            f(*a)
        except BaseException as e:
            errors.append("%s%r: %r" % (f.__name__, a, e))
    return run
@guarded
def files(n):
    name = "/scratch/%d" % n
    os.makedirs(name, exist_ok=True)
    for turn in range(4):
        data = hashlib.sha256(b"%d %d" % (n, turn)).digest() * 2048
        with open("%s/%d" % (name, turn), "wb") as f:
            for i in range(0, len(data), 5000):
                f.write(data[i:i+5000])
            if turn % 2:
                f.flush()
                os.fsync(f.fileno())
        os.rename("%s/%d" % (name, turn), "%s/r%d" % (name, turn))
        with open("%s/r%d" % (name, turn), "rb") as f:
            if f.read() != data:
                raise Exception("other bytes")
    if sorted(os.listdir(name)) != ["r0", "r1", "r2", "r3"]:
        raise Exception(os.listdir(name))
@guarded
def process(n):
    p = subprocess.run(["sh", "-c", "cat; exit %d" % n], input=b"%d" % n * 10000, stdout=subprocess.PIPE)
    if p.returncode != n or p.stdout != b"%d" % n * 10000:
        raise Exception("exit code %d, %d bytes" % (p.returncode, len(p.stdout)))
@guarded
def copy():
    while True:
        b = os.read(0, 65536)
        if not b:
            break
        while b:
            b = b[os.write(1, b):]
threads = [threading.Thread(target=files, args=(n,)) for n in range(32)]
threads += [threading.Thread(target=process, args=(n,)) for n in range(16)]
threads += [threading.Thread(target=copy)]
for t in threads: t.start()
for t in threads: t.join()
print("\n".join(errors), file=sys.stderr)
sys.exit(len(errors))
`

// TestStress: threads, processes and files work while standard input and
// output run at full rate.
func TestStress(t *testing.T) {
	s := begin(t)
	s.limit = 12 * time.Minute
	s.want(s.sh(fmt.Sprintf(`
in=$(mktemp)
head -c 8388608 /dev/urandom >$in
want=$(sha256sum <$in)
got=$({ $RUN --rm %s %s sh -c %s <$in; echo $? >$in.code; } | sha256sum)
code=$(cat $in.code)
rm -f $in $in.code
echo "$code"
[ "$want" = "$got" ] || echo "want $want got $got"`,
		python, s.id(), quote("mkdir /scratch && exec python3 -c "+quote(stressProgram)))), 0, "0\n")
}

// TestParallelStreams: several processes of one container keep their bytes apart.
func TestParallelStreams(t *testing.T) {
	s := begin(t)
	s.limit = longLimit
	id := s.start("", busybox, "sleep", "1000")
	r := s.sh(fmt.Sprintf(`
dir=$(mktemp -d); cd $dir
for n in 1 2 3 4 5 6; do
	head -c 2000000 /dev/urandom >in$n
	(ctr task exec --exec-id par$n %s sh -c "cat; exit $n" <in$n >out$n; echo $? >code$n) &
done
wait
for n in 1 2 3 4 5 6; do cmp in$n out$n && cat code$n; done
cd /; rm -rf $dir`, id))
	s.want(r, 0, "1\n2\n3\n4\n5\n6\n")
}

// TestOneAfterAnother runs 6 containers in a row; make soak runs hundreds.
func TestOneAfterAnother(t *testing.T) {
	s := begin(t)
	s.limit = longLimit
	s.want(s.sh(fmt.Sprintf(`
for n in $(seq 6); do
	out=$($RUN --rm $B %s-$n sh -c "echo $n; exit $n"); code=$?
	[ "$out $code" = "$n $n" ] || { echo "container $n: output $out, exit code $code"; break; }
done`, s.id())), 0, "")
}

// TestAtOnce runs 10 containers at the same time, each with one virtual CPU:
// guests have the same share of the lab's two processors as the dom0 that
// serves them all, and the more of them start at once the less is left for it.
func TestAtOnce(t *testing.T) {
	s := begin(t)
	s.limit = 12 * time.Minute
	r := s.sh(fmt.Sprintf(`
dir=$(mktemp -d)
for n in $(seq 10); do
	(head -c $((2000000 + n)) /dev/zero | $RUN --rm --memory-limit 67108864 --annotation io.xcontainer.vcpus=1 $B %s-$n sh -c "wc -c; sleep 2; echo $n; exit $n" >$dir/$n
	echo $? >>$dir/$n) &
done
wait
for n in $(seq 10); do tr '\n' ' ' <$dir/$n; done
rm -rf $dir`, s.id()))
	var want strings.Builder
	for n := 1; n <= 10; n++ {
		fmt.Fprintf(&want, "%d %d %d ", 2000000+n, n, n)
	}
	s.want(r, 0, want.String())
}
