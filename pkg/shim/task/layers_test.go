// SPDX-License-Identifier: Apache-2.0

package task

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"

	"github.com/xcontainer/xcontainer/pkg/noxs"
)

// Mounts as containerd 2.3's snapshotters make them.
var (
	blockfile = []*types.Mount{{Type: "ext4", Source: "/b/1", Options: []string{"loop", "rw"}}}
	devmapper = []*types.Mount{{Type: "ext4", Source: "/dev/mapper/x-snap-3", Options: []string{"discard"}}}
	overlayfs = []*types.Mount{{Type: "overlay", Source: "overlay", Options: []string{"index=off", "workdir=/o/3/work", "upperdir=/o/3/fs", "lowerdir=/o/2/fs:/o/1/fs"}}}
	erofs     = []*types.Mount{
		{Type: "ext4", Source: "/e/4/rwlayer.img", Options: []string{"rw", "loop"}},
		{Type: "erofs", Source: "/e/3/layer.erofs", Options: []string{"ro", "loop"}},
		{Type: "erofs", Source: "/e/2/layer.erofs", Options: []string{"ro", "loop"}},
		{Type: "erofs", Source: "/e/1/layer.erofs", Options: []string{"ro", "loop"}},
		{Type: "format/mkdir/overlay", Source: "overlay", Options: []string{
			"X-containerd.mkdir.path={{ mount 0 }}/upper:0755",
			"X-containerd.mkdir.path={{ mount 0 }}/work:0755",
			"workdir={{ mount 0 }}/work", "upperdir={{ mount 0 }}/upper",
			"lowerdir={{ overlay 1 3 }}",
		}},
	}
	erofsNoParent = []*types.Mount{
		{Type: "ext4", Source: "/e/4/rwlayer.img", Options: []string{"rw", "loop"}},
		{Type: "format/mkdir/bind", Source: "{{ mount 0 }}/upper", Options: []string{"X-containerd.mkdir.path={{ mount 0 }}/upper:0755", "rw", "rbind"}},
	}
	erofsMerged = []*types.Mount{
		{Type: "erofs", Source: "/e/3/fsmeta.erofs", Options: []string{"ro", "loop", "device=/e/1/layer.erofs", "device=/e/2/layer.erofs"}},
	}
	erofsHostUpper = append(slices.Clone(erofs[1:4]), &types.Mount{Type: "format/mkdir/overlay", Source: "overlay", Options: []string{
		"workdir=/e/4/work", "upperdir=/e/4/fs", "lowerdir={{ overlay 0 2 }}"}})
)

// text writes a plan down.
func (p *diskPlan) text() string {
	var b strings.Builder
	for _, i := range p.images {
		fmt.Fprintf(&b, "%s %t\n", i.path, i.readOnly)
	}
	for _, m := range p.mounts {
		fmt.Fprintf(&b, "%s %s %s\n", m.Type, m.Source, strings.Join(m.Options, ","))
	}
	return b.String()
}

func TestPlanDisks(t *testing.T) {
	many := func(n int) (list []*types.Mount) {
		for i := range n {
			list = append(list, &types.Mount{Type: "erofs", Source: fmt.Sprint("/e/", i)})
		}
		return append(list, &types.Mount{Type: "format/overlay", Source: "overlay", Options: []string{fmt.Sprintf("lowerdir={{ overlay %d 0 }}", n-1)}})
	}
	for name, c := range map[string]struct {
		list      []*types.Mount
		plan, why string
	}{
		"none":      {nil, "", ""},
		"overlayfs": {overlayfs, "", ""},
		"bind":      {[]*types.Mount{{Type: "bind", Source: "/x", Options: []string{"rw", "rbind"}}}, "", ""},
		"blockfile": {blockfile, "/b/1 false\next4 disk:0 rw\n", ""},
		"view":      {[]*types.Mount{{Type: "ext4", Source: "/b/1", Options: []string{"ro", "loop"}}}, "/b/1 true\next4 disk:0 ro\n", ""},
		"devmapper": {devmapper, "/dev/mapper/x-snap-3 false\next4 disk:0 discard\n", ""},
		"erofs": {erofs, "/e/4/rwlayer.img false\n/e/3/layer.erofs true\n/e/2/layer.erofs true\n/e/1/layer.erofs true\n" +
			"ext4 disk:0 rw\nerofs disk:1 ro\nerofs disk:2 ro\nerofs disk:3 ro\n" +
			"overlay overlay mkdir=@0/upper:0755,mkdir=@0/work:0755,workdir=@0/work,upperdir=@0/upper,lowerdir=@1:@2:@3\n", ""},
		"erofs, new image":  {erofsNoParent, "/e/4/rwlayer.img false\next4 disk:0 rw\nbind @0/upper mkdir=@0/upper:0755,rw,rbind\n", ""},
		"erofs, merged":     {erofsMerged, "/e/3/fsmeta.erofs true\n/e/1/layer.erofs true\n/e/2/layer.erofs true\nerofs disk:0 ro,device=disk:1,device=disk:2\n", ""},
		"erofs, host upper": {erofsHostUpper, "", "mount 3 uses the host's directory /e/4/work"},
		"xfs":               {[]*types.Mount{{Type: "xfs", Source: "/b/1", Options: []string{"loop"}}, blockfile[0]}, "", "mount 0 is of type xfs, which the guest's kernel has not"},
		"target":            {append(slices.Clone(blockfile), &types.Mount{Type: "ext4", Source: "/b", Target: "/var"}), "", "mount 1 belongs at /var in the root file system"},
		"id-mapped":         {[]*types.Mount{{Type: "ext4", Source: "/b", Options: []string{"uidmap=0:1:1"}}}, "", "mount 0 is id-mapped"},
		"too many":          {many(noxs.MaxDisks + 1), "", "it consists of 13 block images, and a domain can have 12 disks"},
		"x-options":         {[]*types.Mount{{Type: "ext4", Source: "/b", Options: []string{"x-systemd.automount", "loop"}}}, "/b false\next4 disk:0 \n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			layers, err := parseLayers(c.list)
			if err != nil {
				t.Fatal(err)
			}
			plan, why, err := planDisks(layers)
			if err != nil || why != c.why || (plan == nil) != (c.plan == "") {
				t.Fatalf("plan %v, why %q, %v", plan, why, err)
			}
			if plan != nil && plan.text() != c.plan {
				t.Errorf("plan\n%swant\n%s", plan.text(), c.plan)
			}
		})
	}
	layers, _ := parseLayers(many(noxs.MaxDisks))
	plan, _, err := planDisks(layers)
	if err != nil || plan == nil || !strings.HasSuffix(plan.text(), "lowerdir=@11:@10:@9:@8:@7:@6:@5:@4:@3:@2:@1:@0\n") {
		t.Errorf("plan %v, %v", plan, err)
	}
}

func TestPlanDisksRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		list []*types.Mount
		want string
	}{
		"mkfs":             {[]*types.Mount{{Type: "mkfs/ext4", Source: "/b"}}, `rootfs mount 0: type "mkfs/ext4": X-Containers do not carry out "mkfs"`},
		"unknown":          {[]*types.Mount{{Type: "tomato/ext4", Source: "/b"}}, `do not carry out "tomato"`},
		"dm-verity":        {[]*types.Mount{{Type: "erofs", Source: "/b", Options: []string{"X-containerd.dmverity=/m"}}}, `"X-containerd.dmverity=/m" is not supported by X-Containers; set dmverity_mode = "off"`},
		"mkdir, no prefix": {[]*types.Mount{{Type: "ext4", Source: "/b", Options: []string{"X-containerd.mkdir.path=/x"}}}, "let containerd carry it out"},
		"itself":           {[]*types.Mount{{Type: "format/bind", Source: "{{ mount 0 }}"}}, `template "{{ mount 0 }}" means nothing`},
		"later":            {[]*types.Mount{blockfile[0], {Type: "format/overlay", Options: []string{"lowerdir={{ overlay 0 1 }}"}}, blockfile[0]}, `template "{{ overlay 0 1 }}" means nothing`},
		"other":            {[]*types.Mount{blockfile[0], {Type: "format/bind", Source: "{{ target 0 }}"}}, `template "{{ target 0 }}" means nothing`},
		"program":          {[]*types.Mount{blockfile[0], {Type: "format/bind", Source: `{{ range 1000000000 }}x{{ end }}`}}, "means nothing"},
		"too many":         {make([]*types.Mount, maxLayers+1), "rootfs of 513 mounts, at most 512"},
	} {
		layers, err := parseLayers(c.list)
		if err == nil {
			_, _, err = planDisks(layers)
		}
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func FuzzPlanDisks(f *testing.F) {
	for _, list := range [][]*types.Mount{blockfile, devmapper, overlayfs, erofs, erofsNoParent, erofsMerged, erofsHostUpper} {
		var lines []string
		for _, m := range list {
			lines = append(lines, strings.Join(append([]string{m.Type, m.Source}, m.Options...), "\t"))
		}
		f.Add(strings.Join(lines, "\n"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		var list []*types.Mount
		for line := range strings.Lines(text) {
			parts := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			m := &types.Mount{Type: parts[0]}
			if len(parts) > 1 {
				m.Source, m.Options = parts[1], parts[2:]
			}
			list = append(list, m)
		}
		layers, err := parseLayers(list)
		if err != nil {
			return
		}
		plan, why, err := planDisks(layers)
		if plan == nil {
			return
		}
		if why != "" || err != nil || len(plan.images) > noxs.MaxDisks || len(plan.mounts) != len(list) {
			t.Fatalf("%q: %q %v", plan.text(), why, err)
		}
		for _, m := range plan.mounts {
			for _, o := range m.Options {
				dir := strings.HasPrefix(o, "lowerdir=") || strings.HasPrefix(o, "upperdir=") || strings.HasPrefix(o, "workdir=")
				if strings.HasPrefix(o, optPrivate) || m.Type == "overlay" && dir && !strings.Contains(o, "=@") {
					t.Fatalf("option %q for the guest", o)
				}
			}
		}
	})
}
