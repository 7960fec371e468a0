// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/shim/refusal"
)

// Identities of this package's errors.
var (
	ErrInvalid     = errors.New("invalid seccomp profile")
	ErrUnsupported = errors.New("seccomp profile not supported")
)

func invalid(format string, args ...any) error {
	return refusal.New(ErrInvalid, "seccomp profile: "+fmt.Sprintf(format, args...))
}

// unsupported: what is an object with its name.
func unsupported(format string, args ...any) error {
	return refusal.New(ErrUnsupported, "seccomp profile: "+fmt.Sprintf(format, args...)+" is not supported by X-Containers")
}

// maxErrno is the largest error number that the kernel lets a filter return.
const maxErrno = 4095

// maxArgs is how many arguments a system call has.
const maxArgs = 6

// maxRules bounds the rules, each for one name: a hostile profile would take
// time and memory long before its program is too large.
const maxRules = 1 << 14

// condition on one argument.
type condition struct {
	arg         uint32
	op          specs.LinuxSeccompOperator
	value, mask uint64 // mask only for SCMP_CMP_MASKED_EQ
}

// rule is what becomes of a call whose conditions all hold.
type rule struct {
	conditions []condition
	action     uint32
}

// named are the rules for one name, in their order.
type named struct {
	name string
	rule
}

// action is what seccomp(2) takes for an action of the specification.
func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	var code uint32
	switch a {
	case specs.ActKill, specs.ActKillThread:
		code = unix.SECCOMP_RET_KILL_THREAD
	case specs.ActKillProcess:
		code = unix.SECCOMP_RET_KILL_PROCESS
	case specs.ActTrap:
		code = unix.SECCOMP_RET_TRAP
	case specs.ActLog:
		code = unix.SECCOMP_RET_LOG
	case specs.ActAllow:
		code = unix.SECCOMP_RET_ALLOW
	case specs.ActErrno, specs.ActTrace:
		n := uint(unix.EPERM)
		if errno != nil {
			n = *errno
		}
		if n > maxErrno {
			return 0, invalid("errnoRet %d is more than %d", n, maxErrno)
		}
		if a == specs.ActErrno {
			return unix.SECCOMP_RET_ERRNO | uint32(n), nil
		}
		return unix.SECCOMP_RET_TRACE | uint32(n), nil
	case specs.ActNotify:
		return 0, unsupported("the action %s", a)
	default:
		return 0, invalid("action %q is unknown", a)
	}
	if errno != nil {
		return 0, invalid("the action %s takes no errnoRet", a)
	}
	return code, nil
}

// flags for seccomp(2).
func flags(p *specs.LinuxSeccomp) (uint32, error) {
	if p.Flags == nil {
		// As runc: the mitigation that this leaves out costs all containers much.
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil
	}
	var out uint32
	for _, f := range p.Flags {
		switch f {
		case specs.LinuxSeccompFlagLog:
			out |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			out |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case "SECCOMP_FILTER_FLAG_TSYNC":
			// The filter is installed by the one thread that goes on to the exec.
		case specs.LinuxSeccompFlagWaitKillableRecv:
			return 0, unsupported("the flag %s", f)
		default:
			return 0, invalid("flag %q is unknown", f)
		}
	}
	return out, nil
}

// conditions of a rule; more than one list if it stands for several rules.
func conditions(args []specs.LinuxSeccompArg) ([][]condition, error) {
	var list []condition
	seen := map[uint]int{}
	for _, a := range args {
		if a.Index >= maxArgs {
			return nil, invalid("a system call has no argument %d", a.Index)
		}
		c := condition{arg: uint32(a.Index), op: a.Op, value: a.Value}
		switch a.Op {
		case specs.OpEqualTo, specs.OpNotEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpLessThan, specs.OpLessEqual:
		case specs.OpMaskedEqual:
			c.mask, c.value = a.Value, a.ValueTwo
		default:
			return nil, invalid("operator %q is unknown", a.Op)
		}
		seen[a.Index]++
		list = append(list, c)
	}
	for _, n := range seen {
		if n > 1 {
			var out [][]condition
			for _, c := range list {
				out = append(out, []condition{c})
			}
			return out, nil
		}
	}
	// libseccomp looks at arguments in their order, too.
	slices.SortStableFunc(list, func(a, b condition) int { return int(a.arg) - int(b.arg) })
	return [][]condition{list}, nil
}

// rules of the profile, those left out whose action is the default.
func rules(p *specs.LinuxSeccomp, def uint32) (list []named, names []string, err error) {
	for i := range p.Syscalls {
		call := &p.Syscalls[i]
		act, err := action(call.Action, call.ErrnoRet)
		if err != nil {
			return nil, nil, err
		}
		all, err := conditions(call.Args)
		if err != nil {
			return nil, nil, err
		}
		if len(list)+len(names)+len(call.Names)*len(all) > maxRules {
			return nil, nil, invalid("more than %d rules", maxRules)
		}
		names = append(names, call.Names...)
		for _, name := range call.Names {
			if name == "" {
				return nil, nil, invalid("a rule has an empty name")
			}
			if act == def {
				continue
			}
			for _, c := range all {
				list = append(list, named{name, rule{c, act}})
			}
		}
	}
	return list, names, nil
}

// add adds a rule to those of a call, unless one of them covers it; those that it
// covers go.
func add(to []rule, r rule) []rule {
	for _, old := range to {
		if covers(old.conditions, r.conditions) {
			return to
		}
	}
	to = slices.DeleteFunc(to, func(old rule) bool { return covers(r.conditions, old.conditions) })
	return append(to, r)
}

// covers tells whether less is the beginning of more.
func covers(less, more []condition) bool {
	return len(less) <= len(more) && slices.Equal(less, more[:len(less)])
}
