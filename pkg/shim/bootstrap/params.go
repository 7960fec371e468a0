// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"fmt"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xcontainer/xcontainer/pkg/shim/options"
)

// maxInput bounds what `start` reads from containerd.
const maxInput = 10 << 20

// Versions of the task service that are answered.
const (
	taskV2 = 2
	taskV3 = 3
)

// params is what a `start` knows about its daemon.
type params struct {
	ttrpcAddress string
	grpcAddress  string
	socketDir    string
	level        string // of the log: trace, debug, info, warn, error, fatal or panic
	cgroup       string // of the shim; empty: the daemon's
	// bootstrap: the daemon (2.3 and later) sent BootstrapParams and reads a
	// BootstrapResult. Earlier ones send their runtime options, or nothing, and
	// read an address.
	bootstrap bool
}

// parse tells the two handshakes apart: it returns nil for that of an earlier
// daemon, whose options may happen to parse as BootstrapParams, so the message
// must name this container.
func parse(input []byte, f Flags) *bootapi.BootstrapParams {
	m := &bootapi.BootstrapParams{}
	if len(input) == 0 || proto.Unmarshal(input, m) != nil || m.InstanceID != f.ID || m.Namespace != f.Namespace {
		return nil
	}
	return m
}

// paramsOf takes them from m, which parse gave.
func paramsOf(m *bootapi.BootstrapParams, f Flags, getenv func(string) string) params {
	if m != nil {
		return params{
			ttrpcAddress: m.ContainerdTtrpcAddress,
			grpcAddress:  m.ContainerdGrpcAddress,
			socketDir:    m.GetSocketDir(),
			level:        level(m.LogLevel),
			bootstrap:    true,
		}
	}
	p := params{
		ttrpcAddress: getenv("TTRPC_ADDRESS"),
		grpcAddress:  f.Address,
		level:        levelInfo,
	}
	if f.Debug {
		p.level = levelDebug
	}
	return p
}

// Levels of the log that are spoken of here.
const (
	levelTrace = "trace"
	levelDebug = "debug"
	levelInfo  = "info"
)

// level names a daemon's level, the finer one if it is between two.
func level(l bootapi.LogLevel) string {
	for _, k := range []struct {
		upTo bootapi.LogLevel
		name string
	}{
		{bootapi.LogLevel_LOG_LEVEL_TRACE, levelTrace},
		{bootapi.LogLevel_LOG_LEVEL_DEBUG, levelDebug},
		{bootapi.LogLevel_LOG_LEVEL_INFO, levelInfo},
		{bootapi.LogLevel_LOG_LEVEL_WARN, "warn"},
		{bootapi.LogLevel_LOG_LEVEL_ERROR, "error"},
		{bootapi.LogLevel_LOG_LEVEL_FATAL, "fatal"},
	} {
		if l <= k.upTo {
			return k.name
		}
	}
	return "panic"
}

// runtimeOptions are those that a daemon sends with `start`: one of the
// extensions of m, of which there may be any, or without m the whole input.
func runtimeOptions(m *bootapi.BootstrapParams, input []byte) (options.Options, error) {
	if m == nil {
		var a anypb.Any
		if proto.Unmarshal(input, &a) != nil {
			return options.Options{}, nil
		}
		return options.Decode(&a)
	}
	for _, e := range m.Extensions {
		if options.Known(e.GetValue()) {
			return options.Decode(e.GetValue())
		}
	}
	return options.Options{}, nil
}

// answer is what `start` prints for a shim that listens at address. Every daemon
// before 2.3 takes the bare address as version 2 (JSON with version 3 would stop
// 1.7). Daemons 2.3.0 to 2.3.6 trim white space around the message, which must
// therefore neither begin nor end with any: it ends with the name of a transform.
func (p params) answer(address string) ([]byte, error) {
	if !p.bootstrap {
		return []byte(address), nil
	}
	r := &bootapi.BootstrapResult{Version: taskV3, Address: address, Protocol: "ttrpc"}
	if err := r.AddExtension(mountCapabilities()); err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode the answer: %w", err)
	}
	return b, nil
}
