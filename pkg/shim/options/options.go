// SPDX-License-Identifier: Apache-2.0

package options

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xcontainer/xcontainer/pkg/shim/refusal"
)

// ErrInvalid is the identity of the errors for options that cannot be read.
var ErrInvalid = errors.New("invalid runtime options")

// maxConfig bounds a configuration text, in bytes, and maxIgnored how many of its
// keys are named.
const (
	maxConfig  = 1 << 20
	maxIgnored = 16
)

// Options are those that this runtime heeds.
type Options struct {
	// ShimCgroup is the cgroup for the shim and the back-end, a path below the
	// root of each hierarchy; empty: containerd's.
	ShimCgroup string
	// Debug asks for the shim's debug messages whatever containerd's own are.
	Debug bool
	// Ignored are the options without a meaning here, in words for the log.
	Ignored []string
}

const (
	runcName    = "containerd.runc.v1.Options"
	genericName = "runtimeoptions.v1.Options"
	// oldName is what CRI called the generic ones before containerd 1.7.
	oldName = "cri.runtimeoptions.v1.Options"
)

func messageName(a *anypb.Any) string {
	return a.TypeUrl[strings.LastIndexByte(a.TypeUrl, '/')+1:]
}

// Known says whether a holds runtime options of one of the two kinds.
func Known(a *anypb.Any) bool {
	if a == nil {
		return false
	}
	switch messageName(a) {
	case runcName, genericName, oldName:
		return true
	}
	return false
}

// Decode reads what a client or containerd's configuration gave, nil for nothing.
// A configuration file is read. Its errors are ErrInvalid.
func Decode(a *anypb.Any) (Options, error) {
	if a == nil || a.TypeUrl == "" && len(a.Value) == 0 {
		return Options{}, nil
	}
	switch name := messageName(a); name {
	case runcName:
		m := &options.Options{}
		if err := proto.Unmarshal(a.Value, m); err != nil {
			return Options{}, invalid("%s: %v", name, err)
		}
		return fromRunc(m), nil
	case genericName, oldName:
		m := &runtimeoptions.Options{}
		if err := proto.Unmarshal(a.Value, m); err != nil {
			return Options{}, invalid("%s: %v", name, err)
		}
		return fromConfig(m)
	default:
		return Options{Ignored: []string{fmt.Sprintf("runtime options of type %.100q", a.TypeUrl)}}, nil
	}
}

func invalid(format string, args ...any) error {
	return refusal.New(ErrInvalid, "runtime options: "+fmt.Sprintf(format, args...))
}

// fromRunc heeds ShimCgroup. The others concern a runc binary, its state and CRIU,
// and the pipes between it and a process, which here are in the guest.
func fromRunc(m *options.Options) Options {
	o := Options{ShimCgroup: m.ShimCgroup}
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if f.Name() != "shim_cgroup" {
			o.Ignored = append(o.Ignored, fmt.Sprintf("runc's option %s", f.Name()))
		}
		return true
	})
	slices.Sort(o.Ignored)
	return o
}

// fromConfig reads a TOML text: ShimCgroup and Debug at its top.
func fromConfig(m *runtimeoptions.Options) (Options, error) {
	text, from := m.ConfigBody, "the configuration's body"
	if m.ConfigPath != "" {
		from = m.ConfigPath
		var err error
		if text, err = readFile(m.ConfigPath); err != nil {
			return Options{}, invalid("%v", err)
		}
	}
	if len(text) > maxConfig {
		return Options{}, invalid("%s is larger than %d MB", from, maxConfig>>20)
	}
	var table map[string]any
	if err := toml.Unmarshal(text, &table); err != nil {
		return Options{}, invalid("%s is not TOML: %v", from, err)
	}
	var o Options
	for key, value := range table {
		var ok bool
		switch strings.ToLower(key) {
		case "shimcgroup", "shim_cgroup":
			o.ShimCgroup, ok = value.(string)
		case "debug":
			o.Debug, ok = value.(bool)
		default:
			o.Ignored = append(o.Ignored, fmt.Sprintf("the option %.64q of %s", key, from))
			continue
		}
		if !ok {
			return Options{}, invalid("%s: %s has a value of the wrong type", from, key)
		}
	}
	slices.Sort(o.Ignored)
	if n := len(o.Ignored); n > maxIgnored {
		o.Ignored = append(o.Ignored[:maxIgnored], fmt.Sprintf("%d more options of %s", n-maxIgnored, from))
	}
	return o, nil
}

// readFile reads a little more than may be. It does not wait for a pipe.
func readFile(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	return io.ReadAll(io.LimitReader(f, maxConfig+1))
}
