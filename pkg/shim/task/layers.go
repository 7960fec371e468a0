// SPDX-License-Identifier: Apache-2.0

package task

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// Options of mounts that are containerd's own (its docs/mounts.md).
const (
	optMkdir   = "X-containerd.mkdir.path="
	optPrivate = "X-containerd."
)

// maxLayers bounds the list of mounts of a root file system.
const maxLayers = 512

// layer is one of the mounts that a root file system is made of. Later ones can
// name earlier ones, and the last is the root.
type layer struct {
	kind          string // type without transforms
	format, mkdir bool   // the transforms
	source        string
	target        string
	options       []string
}

// parseLayers takes the transforms off the mounts' types. Those that make file
// systems are containerd's to carry out.
func parseLayers(list []*types.Mount) ([]layer, error) {
	if len(list) > maxLayers {
		return nil, fmt.Errorf("rootfs of %d mounts, at most %d: %w", len(list), maxLayers, errdefs.ErrInvalidArgument)
	}
	layers := make([]layer, len(list))
	for i, m := range list {
		l := layer{source: m.GetSource(), target: m.GetTarget(), options: m.GetOptions()}
		parts := strings.Split(m.GetType(), "/")
		l.kind = parts[len(parts)-1]
		for _, t := range parts[:len(parts)-1] {
			switch t {
			case "format":
				l.format = true
			case "mkdir":
				l.mkdir = true
			default:
				return nil, fmt.Errorf("rootfs mount %d: type %q: X-Containers do not carry out %q; let containerd do it: %w", i, m.GetType(), t, errdefs.ErrInvalidArgument)
			}
		}
		layers[i] = l
	}
	return layers, nil
}

// template is a value that containerd's mounts may hold.
var template = regexp.MustCompile(`\{\{\s*([a-z]+)\s+(\d{1,4})(?:\s+(\d{1,4}))?\s*\}\}`)

// expand fills in the templates of one of layer i's values. point says where a
// layer before it is mounted.
func expand(layers []layer, i int, value string, point func(n int) string) (string, error) {
	if !layers[i].format || !strings.Contains(value, "{{") {
		return value, nil
	}
	var bad error
	fail := func(s string) string {
		bad = fmt.Errorf("rootfs mount %d: template %q means nothing to X-Containers: %w", i, s, errdefs.ErrInvalidArgument)
		return ""
	}
	out := template.ReplaceAllStringFunc(value, func(s string) string {
		m := template.FindStringSubmatch(s)
		a, _ := strconv.Atoi(m[2])
		b := a
		if m[3] != "" {
			b, _ = strconv.Atoi(m[3])
		}
		if a >= i || b >= i || (m[3] != "") != (m[1] == "overlay") {
			return fail(s)
		}
		switch m[1] {
		case "source":
			return layers[a].source
		case "mount":
			return point(a)
		case "overlay":
			step := 1
			if b < a {
				step = -1
			}
			dirs := []string{point(a)}
			for n := a; n != b; {
				n += step
				dirs = append(dirs, point(n))
			}
			return strings.Join(dirs, ":")
		default:
			return fail(s)
		}
	})
	if bad == nil && strings.Contains(out, "{{") {
		fail(value)
	}
	return out, bad
}

// diskPlan is a root file system that the guest puts together from disks.
type diskPlan struct {
	mounts []*agentapi.Mount
	images []diskImage
}

type diskImage struct {
	path     string
	readOnly bool
}

// planner makes a diskPlan. why is set when the guest cannot mount what the host
// can.
type planner struct {
	layers []layer
	plan   diskPlan
	why    string
}

// planDisks says how a guest can mount the layers. Without a plan the host has
// to; why says what prevents it, and is empty when there is no block image
// at all.
func planDisks(layers []layer) (plan *diskPlan, why string, err error) {
	p := planner{layers: layers}
	for i := range layers {
		m, err := p.mount(i)
		if err != nil {
			return nil, "", err
		}
		p.plan.mounts = append(p.plan.mounts, m)
	}
	if len(p.plan.images) == 0 {
		return nil, "", nil
	}
	if n := len(p.plan.images); n > noxs.MaxDisks {
		p.cannot("it consists of %d block images, and a domain can have %d disks", n, noxs.MaxDisks)
	}
	if p.why != "" {
		return nil, p.why, nil
	}
	return &p.plan, "", nil
}

func (p *planner) cannot(format string, args ...any) {
	if p.why == "" {
		p.why = fmt.Sprintf(format, args...)
	}
}

// disk adds a block image and returns its name in the guest.
func (p *planner) disk(path string, readOnly bool) string {
	p.plan.images = append(p.plan.images, diskImage{path, readOnly})
	return "disk:" + strconv.Itoa(len(p.plan.images)-1)
}

// inGuest is where the guest has mounted a layer (docs/agent.md).
func inGuest(n int) string { return "@" + strconv.Itoa(n) }

func (p *planner) mount(i int) (*agentapi.Mount, error) {
	l := p.layers[i]
	m := &agentapi.Mount{Type: l.kind, Source: l.source}
	if l.target != "" && l.target != "/" {
		p.cannot("mount %d belongs at %s in the root file system", i, l.target)
	}
	source, err := expand(p.layers, i, l.source, inGuest)
	if err != nil {
		return nil, err
	}
	switch l.kind {
	case "ext4", "erofs":
		m.Source = p.disk(source, l.kind == "erofs" || slices.Contains(l.options, "ro"))
	case "overlay":
	case "bind":
		m.Source = source
		p.wantMount(i, source)
	default:
		p.cannot("mount %d is of type %s, which the guest's kernel has not", i, l.kind)
	}
	for _, o := range l.options {
		if o, err = expand(p.layers, i, o, inGuest); err != nil {
			return nil, err
		}
		if err := p.option(i, m, o); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// option adds an option to mount i in the form that the agent knows.
func (p *planner) option(i int, m *agentapi.Mount, o string) error {
	key, value, _ := strings.Cut(o, "=")
	switch {
	case o == "loop" || strings.HasPrefix(o, "x-"):
		return nil
	case strings.HasPrefix(o, optMkdir) && p.layers[i].mkdir:
		value := strings.TrimPrefix(o, optMkdir)
		p.wantMount(i, value)
		o = "mkdir=" + value
	case strings.HasPrefix(o, optPrivate):
		return privateOption(i, o)
	case key == "uidmap" || key == "gidmap":
		p.cannot("mount %d is id-mapped", i)
	case m.Type == "erofs" && key == "device":
		o = key + "=" + p.disk(value, true)
	case m.Type == "overlay" && (key == "lowerdir" || key == "upperdir" || key == "workdir"):
		for dir := range strings.SplitSeq(value, ":") {
			p.wantMount(i, dir)
		}
	}
	m.Options = append(m.Options, o)
	return nil
}

// wantMount: the guest sees no directories of the host here.
func (p *planner) wantMount(i int, dir string) {
	if !strings.HasPrefix(dir, "@") {
		p.cannot("mount %d uses the host's directory %s", i, dir)
	}
}

// privateOption refuses an option that is containerd's own and unknown. The one
// that is known best asks for a check that would be left out.
func privateOption(i int, o string) error {
	remedy := "let containerd carry it out"
	if strings.HasPrefix(o, "X-containerd.dmverity=") {
		remedy = `set dmverity_mode = "off" for containerd's erofs snapshotter`
	}
	return fmt.Errorf("rootfs mount %d: option %q is not supported by X-Containers; %s: %w", i, o, remedy, errdefs.ErrInvalidArgument)
}
