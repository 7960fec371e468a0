// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/labrun"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// attack is one hostile guest.
type attack struct {
	name string
	// kernel is the kernel's MODE; without one it is the agent's mode.
	kernel, agent string
	// booted: the shim takes the guest for booted, and Create succeeds.
	booted bool
	// said is what its console must hold, so that an attack that never began
	// is no success.
	said string
}

var attacks = []attack{
	{name: "device page", kernel: "MODE_PAGE", said: "hostile: mode 0"},
	{name: "rings", kernel: "MODE_RINGS", said: "hostile: mode 1"},
	{name: "FUSE requests", kernel: "MODE_FUSE", said: "hostile: has the root file system"},
	{name: "vsock packets", kernel: "MODE_VSOCK", said: "hostile: packets "},
	{name: "resets", kernel: "MODE_RESET", said: "hostile: mode 4"},
	{name: "console", kernel: "MODE_CONSOLE"},
	{name: "hello of random bytes", agent: "hello-garbage", said: "hostile: mode hello-garbage"},
	{name: "hello of another version", agent: "hello-version", said: "hostile: mode hello-version"},
	{name: "hello without an end", agent: "hello-endless", said: "hostile: mode hello-endless"},
	{name: "random bytes for answers", agent: "garbage", said: "hostile: mode garbage"},
	{name: "frames nobody asked for", agent: "frames", said: "hostile: mode frames"},
	{name: "floods of connections", agent: "floods", booted: true, said: "hostile: mode floods"},
	{name: "lies", agent: "lies", booted: true, said: "hostile: mode lies"},
	{name: "silence", agent: "mute", booted: true, said: "hostile: mode mute"},
}

// Bounds. RSS includes the pages of the program itself, some 15 MB.
const (
	maxRSS         = 96 << 10 // KiB, of a shim or a back-end
	maxDescriptors = 600      // of a shim or a back-end
	endLimit       = 90       // seconds for each step of the end
	createLimit    = 100      // seconds until ctr run gives up a guest that does not start
)

// envSeconds names how long each attack goes on, in seconds.
const envSeconds = "HOSTILE_SECONDS"

func TestHostile(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Minute)
	t.Cleanup(cancel)
	seconds, err := strconv.Atoi(cmp.Or(os.Getenv(envSeconds), "5"))
	if err != nil {
		t.Fatalf("%s: %v", envSeconds, err)
	}
	seed, err := strconv.ParseUint(cmp.Or(os.Getenv("HOSTILE_SEED"), strconv.FormatInt(time.Now().Unix(), 10)), 10, 64)
	if err != nil {
		t.Fatalf("HOSTILE_SEED: %v", err)
	}
	t.Logf("HOSTILE_SEED=%d", seed)
	h := &host{T: t, ctx: ctx, lab: machine, seconds: seconds}
	h.prepare(seed)
	for i, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			h := *h
			h.T = t
			h.run(a, i)
		})
	}
}

// host is the machine under attack.
type host struct {
	*testing.T
	ctx     context.Context
	lab     *lab.Lab
	seconds int
}

// sh runs a script on the host and returns what it wrote and its exit code.
func (h *host) sh(script string) (string, int) {
	h.Helper()
	r, err := h.lab.Run(h.ctx, script, nil)
	if err != nil {
		h.Fatalf("%s: %v", script, err)
	}
	return string(r.Stdout) + string(r.Stderr), r.Code
}

// must is sh for what has to succeed.
func (h *host) must(script string) string {
	h.Helper()
	out, code := h.sh(script)
	if code != 0 {
		h.Fatalf("%s: exit code %d:\n%s", script, code, out)
	}
	return out
}

// prepare builds the guests, brings them to the host, and starts a second daemon
// there whose shims take the library OS from the folder of the day, and a
// well-behaved neighbour under the first one.
func (h *host) prepare(seed uint64) {
	h.Helper()
	canary := fmt.Sprintf("canary-%d", seed)
	dir := h.TempDir()
	agent, err := buildAgent(h.ctx, h.T)
	if err != nil {
		h.Fatal(err)
	}
	h.must("mkdir -p /run/hostile /var/tmp/hostile/share.d")
	h.program("watch")
	h.neighbour()
	for i, a := range attacks {
		d := filepath.Join(dir, strconv.Itoa(i))
		if err := os.Mkdir(d, 0o755); err != nil {
			h.Fatal(err)
		}
		if a.kernel != "" {
			err = buildKernel(h.ctx, d, a.kernel, canary, seed+uint64(i))
		} else {
			err = writeAgent(d, agent, a.agent)
		}
		if err != nil {
			h.Fatal(err)
		}
		if err := h.lab.CopyTo(h.ctx, d, "/var/tmp/hostile/share.d/"); err != nil {
			h.Fatal(err)
		}
		if a.agent != "" {
			h.must(fmt.Sprintf("ln -sf $XCONTAINER_SHARE/%s /var/tmp/hostile/share.d/%d/", kernelFile, i))
		}
	}
	h.must("printf %s " + canary + " >/run/hostile/canary")
	h.must(`set -e
cd /run/hostile
ulimit -Hn 524288
XCONTAINER_SHARE=/run/hostile/share setsid containerd --config /etc/containerd/config.toml --root /var/lib/hostile \
	--state /run/hostile/state --address /run/hostile/sock >/var/log/hostile.log 2>&1 </dev/null &
n=0
until ctr -a /run/hostile/sock version >/dev/null 2>&1; do n=$((n+1)); [ $n -lt 100 ] || exit 1; sleep 0.3; done
ctr images export --local --platform linux/amd64 /var/tmp/hostile/image.tar docker.io/library/busybox:lab
ls -l /var/tmp/hostile/image.tar
ctr -a /run/hostile/sock images import /var/tmp/hostile/image.tar >/dev/null`)
	h.Cleanup(func() { h.sh("pkill -f 'containerd --config.* --root /var/lib/hostile'") })
}

// program builds one of this folder's programs and puts it into /var/tmp.
func (h *host) program(name string) {
	h.Helper()
	path := filepath.Join(h.TempDir(), name)
	if err := labrun.Build(h.ctx, "", path, "./"+name); err != nil {
		h.Fatal(err)
	}
	if err := h.lab.CopyTo(h.ctx, path, "/var/tmp/"); err != nil {
		h.Fatal(err)
	}
}

// neighbour starts a well-behaved container.
func (h *host) neighbour() {
	h.Helper()
	h.must("ctr run -d --runtime io.containerd.xcontainer.v2 docker.io/library/busybox:lab neighbour sleep 100000")
	h.Cleanup(func() { h.sh("timeout 60 ctr task rm -f neighbour; timeout 60 ctr c rm neighbour") })
}

// stateDir has the bundles of the second daemon, and consoleFile is where the shim
// keeps what the guest says, until the end.
const (
	stateDir    = "/run/hostile/state/io.containerd.runtime.v2.task"
	consoleFile = stateDir + "/default/hostile/console.log"
)

func (h *host) run(a attack, i int) {
	h.must(fmt.Sprintf("rm -f /run/hostile/console /run/hostile/ran; ln -sfn /var/tmp/hostile/share.d/%d /run/hostile/share", i))
	h.must(fmt.Sprintf(`cd /run/hostile; (timeout %d ctr -a /run/hostile/sock run -d --annotation io.xcontainer.vcpus=1 --runtime io.containerd.xcontainer.v2 docker.io/library/busybox:lab hostile \
	sleep 1000 >out 2>&1 </dev/null; echo $? >ran) >/dev/null 2>&1 </dev/null &`, createLimit))
	var rss, fds int
	out := h.must(fmt.Sprintf("/var/tmp/watch %d %d %s /run/hostile/console '%s'", createLimit, h.seconds, consoleFile, a.said))
	if _, err := fmt.Sscan(out, &rss, &fds); err != nil {
		h.Fatalf("watch: %v in %q", err, out)
	}
	h.Logf("largest process: %d KiB, %d descriptors", rss, fds)
	if rss > maxRSS || rss == 0 || fds > maxDescriptors {
		h.Errorf("a process grew to %d KiB (at most %d) and %d descriptors (at most %d)", rss, maxRSS, fds, maxDescriptors)
	}
	if a.booted {
		h.provoke()
	}
	h.must("timeout 60 ctr task exec --exec-id x" + strconv.Itoa(i) + " neighbour true")
	h.end(a)
	h.console(a)
	h.clean()
}

// provoke makes the calls that such a guest answers as it likes. Each has to
// come back, with whatever result.
func (h *host) provoke() {
	const (
		task = "ctr -a /run/hostile/sock task "
		exec = task + "exec -d --exec-id "
	)
	for _, call := range []string{
		task + "ps hostile", task + "metrics hostile", exec + "p1 hostile true", exec + "p2 hostile true",
		"xcontainerctl syscalls --root " + stateDir + " hostile",
		task + "pause hostile", task + "resume hostile", task + "kill -s USR1 hostile",
	} {
		// What a process prints is its own; lists, and errors of ctr, are ours.
		show := "cat"
		if strings.HasPrefix(call, exec) {
			show = "grep -a '^ctr: '"
		}
		out, code := h.sh(fmt.Sprintf(`timeout %d %s >/run/hostile/said 2>&1
code=$?; head -c 100000 /run/hostile/said | %s | head -c 3000; exit $code`, endLimit, call, show))
		if code == 124 {
			h.Errorf("%s: no answer in %d s", call, endLimit)
		}
		if strings.ContainsAny(out, "\x1b\x07") {
			h.Errorf("%s: the guest's escape sequences reach the user: %q", call, out)
		}
	}
}

// end stops the attack as a user would.
func (h *host) end(a attack) {
	if out, code := h.sh("test -e /run/hostile/ran || kill $(pgrep -f '^ctr -a /run/hostile/sock run -d.* hostile ' | head -n 1)"); code != 0 {
		h.Logf("interrupt ctr: %s", out)
	}
	script := fmt.Sprintf(`cd /run/hostile
n=0; until [ -e ran ]; do n=$((n+1)); [ $n -lt %d ] || { echo "ctr run does not end"; exit 1; }; sleep 1; done
timeout %d ctr -a /run/hostile/sock task kill -s KILL hostile 2>&1
timeout %d ctr -a /run/hostile/sock task rm -f hostile 2>&1; [ $? -ne 124 ] || { echo "task rm hangs"; exit 1; }
timeout %d ctr -a /run/hostile/sock c rm hostile 2>&1; [ $? -ne 124 ] || { echo "c rm hangs"; exit 1; }
# A flood of the guest's own output is for nobody's log.
echo "run: $(cat ran) $(tr -cd '\12\40-\176' <out | head -c 500)"`, endLimit, endLimit, endLimit, endLimit)
	out, code := h.sh(script)
	h.Logf("%s", out)
	if code != 0 {
		h.Errorf("the end of the hostile container: %s", out)
	}
	if a.booted != strings.Contains(out, "run: 0") {
		h.Errorf("ctr run: want success %v, got %s", a.booted, out)
	}
}

// console looks at what the guest says of itself.
func (h *host) console(a attack) {
	out, _ := h.sh("cat /run/hostile/console | tr -cd '\\12\\15\\40-\\176' | grep -a hostile:")
	if strings.Contains(out, "LEAK") {
		h.Errorf("the guest got out of its exports:\n%s", out)
	}
	if !strings.Contains(out, a.said) {
		h.Errorf("the guest never said %q, the attack did not take place:\n%s", a.said, out)
	}
	h.Logf("%s", out[max(0, len(out)-500):])
}

// clean wants nothing to be left but the neighbour, and no program to have
// crashed.
func (h *host) clean() {
	out, code := h.sh(`
n=0
while :; do
	d=$(xcontainerctl ps --json | grep -c '"domid"') s=$(pgrep -f '^/.*containerd-shim-xcontainer-v2 .*hostile' | wc -l) m=$(grep -c /run/hostile/state /proc/self/mountinfo)
	[ $d -eq 1 ] && [ $s -eq 0 ] && [ $m -eq 0 ] && break
	n=$((n+1)); [ $n -lt 60 ] || { echo "domains $d (want 1), shims $s, mounts $m"; xcontainerctl ps; exit 1; }
	sleep 0.5
done
find /run/hostile /var/lib/hostile /etc /tmp / -maxdepth 4 -xdev -name 'pwned*' 2>/dev/null | grep . && exit 1
grep -n -E '^(panic: |fatal error: |goroutine [0-9]+ \[|\[signal )' /var/log/hostile.log /var/log/containerd.log && exit 1
exit 0`)
	if code != 0 {
		h.Errorf("left behind or crashed:\n%s", out)
	}
}
