// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// layered is a container whose root is an overlay of two exports and a tmpfs.
func (g *guest) layered(args ...string) *agentapi.Container {
	spec := g.spec(args...)
	spec.RootMounts = []*agentapi.Mount{
		{Type: "bind", Source: g.layer(map[string]string{"etc/top": "top\n", "etc/passwd": "root:x:0:0::/:/bin/sh\n"})},
		{Type: "bind", Source: spec.Rootfs, Options: []string{"ro"}},
		{Type: "tmpfs", Source: "upper", Options: []string{"size=16m"}},
		{Type: "overlay", Source: "overlay", Options: []string{
			"mkdir=@2/upper:0755", "mkdir=@2/work:0700:0:0", "mkdir=@2/upper:0700",
			"lowerdir=@0:@1", "upperdir=@2/upper", "workdir=@2/work", "rw", "noatime",
		}},
	}
	return spec
}

// layer makes an export of some files.
func (g *guest) layer(files map[string]string) string {
	g.t.Helper()
	name := g.image() + "-layer"
	for f, text := range files {
		path := filepath.Join(g.dir, "exports", name, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			g.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			g.t.Fatal(err)
		}
	}
	return name
}

func TestRootMounts(t *testing.T) {
	g := newGuest(t)
	spec := g.layered("sh", "-c", "cat /etc/top; wc -l </etc/passwd; echo new >/etc/top; echo x >/new; cat /etc/top; stat -c %a /; grep -c overlay /proc/mounts; grep -c -e exports -e upper /proc/mounts")
	r := g.run(spec, nil)
	// The overlay's own line in mounts names upperdir.
	if r.status != 0 || r.out != "top\n1\nnew\n755\n1\n1\n" || r.err != "" {
		t.Errorf("got %+v", r)
	}
	for _, m := range spec.RootMounts[:2] {
		dir := filepath.Join(g.dir, "exports", m.Source)
		if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
			t.Errorf("export %s was written", m.Source)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "etc/top")); err == nil && string(b) != "top\n" {
			t.Errorf("export %s has changed: %q", m.Source, b)
		}
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(b), g.dir) {
		t.Errorf("mounts of the guest are outside: %v", err)
	}
	if goroutines, fds := g.load(); goroutines > 40 || fds > 40 {
		t.Errorf("%d goroutines, %d descriptors are left", goroutines, fds)
	}
}

// TestRootMountsSub: a directory of an earlier mount is the root, as with an
// image of a single writable layer.
func TestRootMountsSub(t *testing.T) {
	g := newGuest(t)
	spec := g.spec("sh", "-c", "echo x >/f && cat /f; cat /etc/passwd | wc -l")
	parent := g.spec("true").Rootfs
	os.Rename(filepath.Join(g.dir, "exports", spec.Rootfs), filepath.Join(g.dir, "exports", parent, "upper"))
	spec.RootMounts = []*agentapi.Mount{
		{Type: "bind", Source: parent},
		{Type: "bind", Source: "@0/upper", Options: []string{"rbind", "rw", "mkdir=@0/upper:0755"}},
	}
	if r := g.run(spec, nil); r.status != 0 || r.out != "x\n3\n" {
		t.Errorf("got %+v", r)
	}
	if b, _ := os.ReadFile(filepath.Join(g.dir, "exports", parent, "upper/f")); string(b) != "x\n" {
		t.Errorf("the file reads %q outside", b)
	}
}

func TestRootMountsRefuse(t *testing.T) {
	g := newGuest(t)
	set := func(i int, m *agentapi.Mount) func([]*agentapi.Mount) []*agentapi.Mount {
		return func(l []*agentapi.Mount) []*agentapi.Mount { l[i] = m; return l }
	}
	option := func(o string) func([]*agentapi.Mount) []*agentapi.Mount {
		return func(l []*agentapi.Mount) []*agentapi.Mount {
			l[3].Options = append([]string{o}, l[3].Options...)
			return l
		}
	}
	for name, c := range map[string]struct {
		change func([]*agentapi.Mount) []*agentapi.Mount
		code   codes.Code
		text   string
	}{
		"unknown type":     {set(0, &agentapi.Mount{Type: "nfs"}), codes.InvalidArgument, `mount 0 (nfs): a root file system cannot be made of type "nfs"`},
		"no disk":          {set(0, &agentapi.Mount{Type: "ext4", Source: "disk:0"}), codes.NotFound, "mount 0 (ext4): the guest has no disk 0"},
		"a path":           {set(0, &agentapi.Mount{Type: "ext4", Source: "/dev/vda"}), codes.InvalidArgument, `source "/dev/vda" is no disk`},
		"a disk's path":    {set(0, &agentapi.Mount{Type: "erofs", Source: "disk:../0"}), codes.InvalidArgument, `is no disk`},
		"later mount":      {option("lowerdir=@3"), codes.InvalidArgument, `"@3" names no directory of an earlier mount`},
		"no mount":         {option("lowerdir=/etc"), codes.InvalidArgument, `"/etc" names no directory of an earlier mount`},
		"no number":        {option("lowerdir=@x"), codes.InvalidArgument, `names no directory`},
		"missing":          {option("lowerdir=@0/none"), codes.Internal, "open @0/none: no such file or directory"},
		"upwards":          {option("upperdir=@0/../.."), codes.Internal, "invalid cross-device link"},
		"mkdir upwards":    {option("mkdir=@0/../x:0755"), codes.Internal, "invalid cross-device link"},
		"mkdir mode":       {option("mkdir=@2/x:4755"), codes.InvalidArgument, `"4755" is no mode or id`},
		"mkdir form":       {option("mkdir=@2/x:0755:0"), codes.InvalidArgument, "want PATH[:MODE[:UID:GID]]"},
		"unknown option":   {option("tomato=red"), codes.Internal, "tomato"},
		"bind option":      {set(1, &agentapi.Mount{Type: "bind", Source: "@0", Options: []string{"tomato"}}), codes.InvalidArgument, `unknown option "tomato"`},
		"bind of no mount": {set(1, &agentapi.Mount{Type: "bind", Source: "@1"}), codes.InvalidArgument, `"@1" names no directory`},
		"too many": {func([]*agentapi.Mount) []*agentapi.Mount {
			var l []*agentapi.Mount
			for range 33 {
				l = append(l, &agentapi.Mount{Type: "tmpfs", Source: "tmpfs"})
			}
			return l
		}, codes.InvalidArgument, "root file system of 33 mounts, at most 32"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := g.layered("true")
			spec.RootMounts = c.change(spec.RootMounts)
			err := g.tryCreate(spec)
			if status.Code(err) != c.code || !strings.Contains(status.Convert(err).Message(), c.text) {
				t.Errorf("error %v, want %v, %q", err, c.code, c.text)
			}
		})
	}
}

// TestRootMountsLinks: a link in an image leads to no directory of the guest.
func TestRootMountsLinks(t *testing.T) {
	g := newGuest(t)
	spec := g.layered("true")
	lower := spec.RootMounts[0].Source
	if err := os.Symlink("/etc", filepath.Join(g.dir, "exports", lower, "upper")); err != nil {
		t.Fatal(err)
	}
	for _, o := range []string{"lowerdir=@0/upper", "mkdir=@0/upper/x:0755", "upperdir=@0/upper"} {
		spec := g.layered("true")
		spec.RootMounts[0].Source = lower
		spec.RootMounts[3].Options = append([]string{o}, spec.RootMounts[3].Options...)
		if err := g.tryCreate(spec); err == nil || !strings.Contains(err.Error(), "too many levels of symbolic links") {
			t.Errorf("%s: %v", o, err)
		}
	}
}
