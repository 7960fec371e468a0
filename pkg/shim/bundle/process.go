// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"math"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

func (s *Settings) toProcess(p *specs.Process) (*agentapi.Process, error) {
	if len(p.Args) == 0 || p.Args[0] == "" {
		return nil, invalid("process.args is empty; give a command")
	}
	if !path.IsAbs(p.Cwd) {
		return nil, invalid("process.cwd %q is not an absolute path", p.Cwd)
	}
	for _, list := range [][]string{p.Args, p.Env, {p.Cwd, p.User.Username}} {
		for _, v := range list {
			if strings.ContainsRune(v, 0) {
				return nil, invalid("%q holds a NUL byte", v)
			}
		}
	}
	if p.ApparmorProfile != "" {
		s.ignore("AppArmor profile %q", p.ApparmorProfile)
	}
	if p.SelinuxLabel != "" {
		s.ignore("SELinux label %q", p.SelinuxLabel)
	}
	out := &agentapi.Process{
		Args: p.Args,
		Env:  p.Env,
		Cwd:  p.Cwd,
		User: &agentapi.User{
			Uid:            p.User.UID,
			Gid:            p.User.GID,
			AdditionalGids: p.User.AdditionalGids,
			Name:           p.User.Username,
			Umask:          p.User.Umask,
		},
		Terminal:        p.Terminal,
		NoNewPrivileges: p.NoNewPrivileges,
		Streams:         &agentapi.Streams{},
	}
	if c := p.ConsoleSize; c != nil {
		if c.Height > math.MaxUint16 || c.Width > math.MaxUint16 {
			return nil, invalid("process.consoleSize %d×%d is too large", c.Width, c.Height)
		}
		out.Rows, out.Columns = uint32(c.Height), uint32(c.Width)
	}
	if c := p.Capabilities; c != nil {
		out.Capabilities = &agentapi.Capabilities{
			Bounding:    c.Bounding,
			Effective:   c.Effective,
			Inheritable: c.Inheritable,
			Permitted:   c.Permitted,
			Ambient:     c.Ambient,
		}
	}
	if p.OOMScoreAdj != nil {
		v := *p.OOMScoreAdj
		if v < -1000 || v > 1000 {
			return nil, invalid("process.oomScoreAdj %d is not between -1000 and 1000", v)
		}
		adj := int32(v)
		out.OomScoreAdj = &adj
	}
	if err := s.scheduling(p, out); err != nil {
		return nil, err
	}
	for _, r := range p.Rlimits {
		out.Rlimits = append(out.Rlimits, &agentapi.Rlimit{Type: r.Type, Soft: r.Soft, Hard: r.Hard})
	}
	return out, nil
}
