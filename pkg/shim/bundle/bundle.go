// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/refusal"
)

// Identities of this package's errors.
var (
	// ErrInvalid: config.json cannot be read as what it should be.
	ErrInvalid = errors.New("invalid container configuration")
	// ErrUnsupported: config.json asks for something X-Containers do not offer.
	ErrUnsupported = errors.New("not supported by X-Containers")
	// ErrNotFound: there is no config.json.
	ErrNotFound = errors.New("no such bundle")
)

// MaxConfigBytes bounds config.json. The largest that containerd's clients write
// (a pod with hundreds of volumes) has some 200 kB.
const MaxConfigBytes = 16 << 20

// Cache times of exports in the guest (docs/agent.md leaves them to the host):
// nobody else writes to a root file system, but a bind may change on the host.
const (
	RootTTL = time.Hour
	BindTTL = time.Second
)

// Bind is one host directory or file that the container sees.
type Bind struct {
	Mount    int    // index in Settings.Container.Mounts, whose Source is to be set
	Source   string // absolute host path
	ReadOnly bool
}

// Settings is all that config.json says about one container, checked.
type Settings struct {
	// Container is what the agent is asked for. The exports' names (Rootfs, and
	// Source of binds) and Process.Streams are still empty.
	Container *agentapi.Container
	// Root is the absolute host path of the root file system.
	Root  string
	Binds []Bind
	// HostMounts: block images of the root file system are mounted here and not
	// in the guest.
	HostMounts bool

	// Limits and the size of the domain that goes with them. MaxVCPUs is how
	// many virtual CPUs an update can put to use.
	Limits Limits
	Size
	MaxVCPUs uint32

	// XLibOS is what AnnotationXLibOS says, or XLibOSFull.
	XLibOS XLibOS

	// Host is the container's place on the host.
	Host Host

	// ExecAffinity is the default of Process.CpuAffinity for execs; the container's
	// own process has none.
	ExecAffinity string

	// Ignored names settings that have no effect, for the log.
	Ignored []string
}

// Load reads dir/config.json. cpus is the number of CPUs of this host.
func Load(dir string, cpus int) (*Settings, error) {
	data, err := read(dir)
	if err != nil {
		return nil, err
	}
	s, err := Parse(data, dir, cpus)
	if errors.Is(err, errSyntax) {
		return nil, corrupt(dir, err)
	}
	return s, err
}

// LoadHost reads of dir/config.json only what it says of the container's place on
// the host.
func LoadHost(dir string) (*Host, error) {
	data, err := read(dir)
	if err != nil {
		return nil, err
	}
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, corrupt(dir, err)
	}
	s := &Settings{Container: &agentapi.Container{}}
	if err := s.host(&spec); err != nil {
		return nil, err
	}
	return &s.Host, nil
}

func corrupt(dir string, err error) error {
	return refusal.New(ErrInvalid, fmt.Sprintf("%s is corrupt (%v); create the container again", filepath.Join(dir, "config.json"), err))
}

func read(dir string) ([]byte, error) {
	name := filepath.Join(dir, "config.json")
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, refusal.New(ErrNotFound, fmt.Sprintf("bundle %s has no config.json; create the container again", dir))
	}
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxConfigBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	if len(data) > MaxConfigBytes {
		return nil, refusal.New(ErrInvalid, fmt.Sprintf("%s is larger than %d MB; create the container with a smaller configuration", name, MaxConfigBytes>>20))
	}
	return data, nil
}

// errSyntax marks what the JSON decoder refused.
var errSyntax = errors.New("not an OCI runtime configuration")

func invalid(format string, args ...any) error {
	return refusal.New(ErrInvalid, "config.json: "+fmt.Sprintf(format, args...))
}

// unsupported says that what (an object with its name) cannot be had, and what
// to do instead.
func unsupported(what, remedy string) error {
	text := what + " is not supported by X-Containers"
	if remedy != "" {
		text += ": " + remedy
	}
	return refusal.New(ErrUnsupported, text)
}

// Parse checks the contents of a config.json of the bundle in dir, an absolute
// path.
func Parse(data []byte, dir string, cpus int) (*Settings, error) {
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, fmt.Errorf("%w: %w", errSyntax, err)
	}
	s := &Settings{Container: &agentapi.Container{}}
	for _, step := range []func(*specs.Spec) error{
		s.refuse,
		func(spec *specs.Spec) error { return s.root(spec, dir) },
		s.disks,
		s.xlibos,
		s.process,
		s.mounts,
		s.namespaces,
		s.kernel,
		s.host,
		func(spec *specs.Spec) error { return s.size(spec, cpus) },
	} {
		if err := step(&spec); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// ParseProcess checks the process of an exec, as containerd's clients send it.
// InheritTo adds what it has from its container.
func ParseProcess(data []byte) (*agentapi.Process, []string, error) {
	var p specs.Process
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, nil, refusal.New(ErrInvalid, fmt.Sprintf("the process of the exec request is corrupt (%v)", err))
	}
	var s Settings
	out, err := s.toProcess(&p)
	return out, s.Ignored, err
}

// InheritTo gives an exec in the container what its process does not say: seccomp
// filter, personality, and if it has none of its own the CPUs.
func (s *Settings) InheritTo(exec *agentapi.Process) {
	init := s.Container.Process
	exec.Seccomp, exec.SeccompFlags = init.Seccomp, init.SeccompFlags
	exec.Personality = init.Personality
	if exec.CpuAffinity == "" {
		exec.CpuAffinity = s.ExecAffinity
	}
}

func (s *Settings) ignore(format string, args ...any) {
	s.Ignored = append(s.Ignored, fmt.Sprintf(format, args...))
}

// refuse looks at what can be refused without understanding it.
func (s *Settings) refuse(spec *specs.Spec) error {
	if v := spec.Version; v != "" && !strings.HasPrefix(v, "1.") {
		return unsupported(fmt.Sprintf("OCI runtime version %q", v), "use version 1")
	}
	for _, p := range []struct {
		name string
		set  bool
	}{
		{"windows", spec.Windows != nil},
		{"solaris", spec.Solaris != nil},
		{"zos", spec.ZOS != nil},
		{"vm", spec.VM != nil},
	} {
		if p.set {
			return unsupported(fmt.Sprintf("the section %q of config.json", p.name), "use a Linux image")
		}
	}
	return nil
}

func (s *Settings) root(spec *specs.Spec, dir string) error {
	if spec.Root == nil || spec.Root.Path == "" {
		return invalid("root.path is missing")
	}
	s.Root = spec.Root.Path
	if !filepath.IsAbs(s.Root) {
		s.Root = filepath.Join(dir, s.Root)
	}
	s.Container.ReadonlyRootfs = spec.Root.Readonly
	s.Container.Hostname = spec.Hostname
	s.Container.Domainname = spec.Domainname
	return nil
}

func (s *Settings) process(spec *specs.Spec) error {
	if spec.Process == nil {
		return invalid("process is missing")
	}
	p, err := s.toProcess(spec.Process)
	if err != nil {
		return err
	}
	// What is said of the affinity of execs is no affinity of this process.
	s.ExecAffinity, p.CpuAffinity = p.CpuAffinity, ""
	s.Container.Process = p
	return nil
}
