// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// defaultUmask is what a process gets that asks for none, as with runc.
const defaultUmask = 0o022

// defaultNoFile is the soft limit of open files of a process that asks for
// none: the kernel's own default (INR_OPEN_CUR), not what the agent has.
const defaultNoFile = 1024

// rlimits maps the names of the OCI specification to the kernel's numbers.
var rlimits = map[string]int{
	"RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_FSIZE": unix.RLIMIT_FSIZE,
	"RLIMIT_DATA": unix.RLIMIT_DATA, "RLIMIT_STACK": unix.RLIMIT_STACK,
	"RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_RSS": unix.RLIMIT_RSS,
	"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE,
	"RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK, "RLIMIT_AS": unix.RLIMIT_AS,
	"RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE,
	"RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO, "RLIMIT_RTTIME": unix.RLIMIT_RTTIME,
}

// setOOMScore writes the score that the OOM killer adds. It uses the agent's
// /proc, so an init does it before pivot.
func setOOMScore(p *agentapi.Process) error {
	if p.OomScoreAdj == nil {
		return nil
	}
	score := strconv.Itoa(int(p.GetOomScoreAdj()))
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(score), 0); err != nil {
		return fmt.Errorf("set oom_score_adj %s: %w", score, err)
	}
	return nil
}

// setRlimits applies the process's limits. It needs CAP_SYS_RESOURCE to raise
// one.
func setRlimits(list []*agentapi.Rlimit) error {
	for _, l := range list {
		which, ok := rlimits[l.GetType()]
		if !ok {
			return failf(codes.InvalidArgument, "unknown rlimit %q", l.GetType())
		}
		// The syscall package restores the limit of open files at exec
		// unless it was set through it.
		lim := syscall.Rlimit{Cur: l.GetSoft(), Max: l.GetHard()}
		if err := syscall.Setrlimit(which, &lim); err != nil {
			return fmt.Errorf("set %s to %d:%d: %w", l.GetType(), l.GetSoft(), l.GetHard(), err)
		}
	}
	if slices.ContainsFunc(list, func(l *agentapi.Rlimit) bool { return l.GetType() == "RLIMIT_NOFILE" }) {
		return nil
	}
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("get RLIMIT_NOFILE: %w", err)
	}
	lim.Cur = min(defaultNoFile, lim.Max)
	if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("set RLIMIT_NOFILE: %w", err)
	}
	return nil
}

// become gives this thread the process's limits, directory, user and
// capabilities, in the only order in which each step still has the right to do
// what it does. So a filter of a process that may gain privileges comes before
// it loses the right to have one; any other comes last of all (exec).
func become(p *agentapi.Process, id identity, f *filter) error {
	caps, err := parseCapabilities(p.GetCapabilities())
	if err != nil {
		return err
	}
	if err := setRlimits(p.GetRlimits()); err != nil {
		return err
	}
	if err := setScheduling(p); err != nil {
		return err
	}
	umask := defaultUmask
	if u := p.GetUser(); u != nil && u.Umask != nil {
		umask = int(u.GetUmask() & 0o777)
	}
	unix.Umask(umask)
	if p.GetNoNewPrivileges() {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	// The user may not reach a directory that root does, and the other way
	// round on a file system with its own rules: either is enough.
	chdirErr := unix.Chdir(p.GetCwd())
	if chdirErr != nil && !errors.Is(chdirErr, unix.EACCES) {
		return chdirError(p, chdirErr)
	}
	if f != nil && !p.GetNoNewPrivileges() {
		if err := f.install(); err != nil {
			return err
		}
	}
	if err := caps.limit(); err != nil {
		return err
	}
	if err := setIdentity(id); err != nil {
		return err
	}
	if chdirErr != nil {
		if err := unix.Chdir(p.GetCwd()); err != nil {
			return chdirError(p, err)
		}
	}
	return caps.apply()
}

func chdirError(p *agentapi.Process, err error) error {
	return failf(codes.InvalidArgument, "chdir to cwd (%q) set in config.json failed: %v", p.GetCwd(), err)
}

// setIdentity changes the groups and users of this thread alone, and keeps the
// permitted capabilities over the change.
func setIdentity(id identity) error {
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("keep capabilities: %w", err)
	}
	groups := make([]int, len(id.groups))
	for i, g := range id.groups {
		groups[i] = int(g)
	}
	if err := unix.Setgroups(groups); err != nil {
		return fmt.Errorf("set groups %v: %w", id.groups, err)
	}
	gid, uid := uintptr(id.gid), uintptr(id.uid)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return fmt.Errorf("set group %d: %w", id.gid, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return fmt.Errorf("set user %d: %w", id.uid, errno)
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("drop capabilities at exec: %w", err)
	}
	return nil
}

// ownStdio makes the process's user the owner of its pipes and its terminal:
// programs open /dev/stdout again by name.
func ownStdio(id identity) error {
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("stat stdio %d: %w", fd, err)
		}
		if st.Uid == id.uid || st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3) {
			continue
		}
		// The group of a terminal is devpts's option, that of a pipe matters to nobody.
		if err := unix.Fchown(fd, int(id.uid), -1); err != nil {
			return fmt.Errorf("give stdio %d to user %d: %w", fd, id.uid, err)
		}
	}
	return nil
}

// program is a command that has been looked up.
type program struct {
	file string
	args []string
	env  []string

	filtered bool    // by a filter, installed or not
	filter   *filter // to be installed at the exec, or nil
}

// prepare makes this thread ready to exec the process: identity, directory and
// the file that its command names.
func prepare(p *agentapi.Process, id identity) (program, error) {
	prog := program{args: p.GetArgs(), env: p.GetEnv()}
	if len(prog.args) == 0 {
		return prog, failf(codes.InvalidArgument, "process has no arguments")
	}
	if getenv(prog.env, "HOME") == "" {
		prog.env = append(slices.Clone(prog.env), "HOME="+id.home)
	}
	if err := ownStdio(id); err != nil {
		return prog, err
	}
	f, err := newFilter(p)
	if err != nil {
		return prog, err
	}
	if err := become(p, id, f); err != nil {
		return prog, err
	}
	prog.filtered = f != nil
	if p.GetNoNewPrivileges() {
		prog.filter = f
	}
	if prog.file, err = lookPath(prog.args[0], prog.env); err != nil {
		return prog, err
	}
	return prog, checkMachine(prog.file)
}

// exec replaces this process. It returns only when that has failed.
func (p program) exec(ctl control) error {
	if err := resetSignals(); err != nil {
		return err
	}
	if err := unix.CloseRange(ctlFD, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("mark descriptors: %w", err)
	}
	im, err := newImage(p.file, p.args, p.env)
	if err != nil {
		return failf(codes.InvalidArgument, "exec %s: an argument or variable holds a zero byte", p.file)
	}
	if err := ctl.send(Exec, nil); err != nil {
		return err
	}
	if p.filtered {
		err = im.exec(p.filter)
	} else {
		err = syscall.Exec(p.file, p.args, p.env)
	}
	var failed *Error
	if errors.As(err, &failed) {
		return failed
	}
	code := codes.InvalidArgument
	if errors.Is(err, unix.ENOENT) {
		code = codes.NotFound
	}
	return failf(code, "exec %s: %v", p.file, err)
}
