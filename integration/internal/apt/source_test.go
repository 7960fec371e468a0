// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
)

func TestParseSource(t *testing.T) {
	sum := "SHA256:" + strings.Repeat("0f", sha256.Size)
	text := "NOTICE: packaging is maintained elsewhere\n" +
		"'http://m.example/pool/x/xen_4.1+2-0+deb12u1.dsc' xen_4.1+2-0+deb12u1.dsc 11 " + sum + "\n" +
		"'http://m.example/pool/x/xen_4.1+2.orig.tar.xz' xen_4.1+2.orig.tar.xz 22 " + sum + "\n" +
		"'http://m.example/pool/x/xen_4.1+2.orig.tar.xz.asc' xen_4.1+2.orig.tar.xz.asc 44 " + sum + "\n" +
		"'http://m.example/pool/x/xen_4.1+2-0+deb12u1.debian.tar.xz' ../xen_4.1+2-0+deb12u1.debian.tar.xz 33 " + sum + "\n"
	got, err := parseSource(text, "xen", "/s")
	want := SourcePackage{"xen", "4.1+2-0+deb12u1", []SourceFile{
		{"/s/xen_4.1+2.orig.tar.xz", 22, sum},
		{"/s/xen_4.1+2-0+deb12u1.debian.tar.xz", 33, sum},
	}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v\nwant %v", got, err, want)
	}
	for name, bad := range map[string]string{
		"no hash":   "'u' xen_1.tar.xz 22\n",
		"weak hash": "'u' xen_1.tar.xz 22 MD5Sum:" + strings.Repeat("0f", 16) + "\n",
		"short":     "'u' xen_1.tar.xz 22 SHA256:0f\n",
		"size":      "'u' xen_1.tar.xz x " + sum + "\n",
	} {
		if _, err := parseSource("'u' xen_1.dsc 1 "+sum+"\n"+bad, "xen", "/s"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := parseSource("", "xen", "/s"); !errors.Is(err, ErrNotFound) {
		t.Errorf("nothing: %v", err)
	}
}

func TestSourceFileCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	sum := sha256.Sum256([]byte("data"))
	f := SourceFile{path, 4, "SHA256:" + hex.EncodeToString(sum[:])}
	if err := f.check(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for text, want := range map[string]error{"data": nil, "dat": errDamaged, "date": errDamaged, "data+": errDamaged} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := f.check(); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", text, err, want)
		}
	}
}

// sum is the checksum of text as package lists have it.
func sum(text string) string {
	h := sha256.Sum256([]byte(text))
	return "SHA256:" + hex.EncodeToString(h[:])
}

// fakeApt is an Apt whose apt-get and apt-helper are shell scripts. apt-get
// writes down its verbs, offers a source package, and has its archive if served
// is not empty. The helper has what is in the folder that is the second mirror.
func fakeApt(t *testing.T, served string) (a *Apt, verbs func() string) {
	t.Helper()
	bin, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
	script := fmt.Sprintf(`#!/bin/sh
case "$*" in
*--print-uris*) verb=plan
	echo "'u' x_1-1.dsc 1 %[1]s"
	echo "'u' x_1.orig.tar.xz 4 %[1]s" ;;
*update*) verb=update ;;
*) verb=fetch
	[ -z '%[2]s' ] || printf %%s '%[2]s' >x_1.orig.tar.xz
	echo 'E: Failed to fetch http://m.example/x_1-1.dsc  404  Not Found' >&2
	[ -n '%[2]s' ] || echo 'E: Failed to fetch http://m.example/x%%5f1.orig.tar.xz  404  Not Found [IP: 192.0.2.1 80]' >&2
	exit_code=100 ;;
esac
echo $verb >>%[3]s
exit $exit_code
`, sum("data"), served, log)
	helper := "#!/bin/sh\nexec cp \"$3\" \"$4\"\n"
	for name, text := range map[string]string{"apt-get": script, "helper": helper} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	old := aptHelper
	aptHelper = filepath.Join(bin, "helper")
	t.Cleanup(func() { aptHelper = old })
	c, err := cache.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a = &Apt{cache: c, dir: t.TempDir(), mirrors: []string{"/nowhere/", t.TempDir() + "/"}, fetches: func(string) {}}
	for _, d := range []string{"plans", "none"} {
		if err := os.Mkdir(a.file(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(a.stamp(), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return a, func() string {
		b, _ := os.ReadFile(log)
		os.Remove(log)
		return strings.Join(strings.Fields(string(b)), " ")
	}
}

func TestSource(t *testing.T) {
	a, verbs := fakeApt(t, "data")
	for _, want := range []string{"plan fetch", ""} {
		s, err := a.Source(context.Background(), "x")
		if err != nil || s.Version != "1-1" || len(s.Files) != 1 || s.check() != nil {
			t.Fatalf("got %+v, %v", s, err)
		}
		if got := verbs(); got != want {
			t.Errorf("apt-get was asked to %q, want %q", got, want)
		}
	}
	// A damaged file is fetched anew.
	if err := os.WriteFile(filepath.Join(a.sources(), "x_1.orig.tar.xz"), []byte("dat"), 0o644); err != nil {
		t.Fatal(err)
	}
	if s, err := a.Source(context.Background(), "x"); err != nil || s.check() != nil {
		t.Errorf("after damage: %+v, %v", s, err)
	}
}

func TestSourceNotServed(t *testing.T) {
	a, verbs := fakeApt(t, "")
	// Fetched once more with new lists, and then not again.
	for _, want := range []string{"plan fetch update plan fetch", ""} {
		s, err := a.Source(context.Background(), "x")
		if !errors.Is(err, ErrNotServed) || s.Version != "1-1" {
			t.Fatalf("got %+v, %v", s, err)
		}
		if got := verbs(); got != want {
			t.Errorf("apt-get was asked to %q, want %q", got, want)
		}
	}
	if err := a.Update(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Source(context.Background(), "x"); !errors.Is(err, ErrNotServed) || !strings.HasPrefix(verbs(), "update plan fetch") {
		t.Errorf("nothing is tried with new lists: %v", err)
	}
}

// What is damaged, or got lost on its way, is tried again each time.
func TestSourceDamaged(t *testing.T) {
	a, verbs := fakeApt(t, "other")
	for _, want := range []string{"plan fetch update plan fetch", "fetch update plan fetch"} {
		if _, err := a.Source(context.Background(), "x"); err == nil || errors.Is(err, ErrNotServed) {
			t.Fatalf("got %v", err)
		}
		if got := verbs(); got != want {
			t.Errorf("apt-get was asked to %q, want %q", got, want)
		}
	}
}

func TestArchives(t *testing.T) {
	a, _ := fakeApt(t, "")
	if err := os.MkdirAll(a.mirrors[1]+"pool/x", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.mirrors[1]+"pool/x/x_1.orig.tar.xz", []byte("data"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := SourcePackage{Name: "x", Version: "1-1", Files: []SourceFile{{"pool/x/x_1.orig.tar.xz", 4, sum("data")}}}
	for range 2 {
		s, err := a.Archives(context.Background(), want)
		if err != nil || s.Name != "x" || s.Version != "1-1" || len(s.Files) != 1 || s.check() != nil {
			t.Fatalf("got %+v, %v", s, err)
		}
		// Once it is there, no mirror is needed.
		os.Remove(a.mirrors[1] + "pool/x/x_1.orig.tar.xz")
	}
	for _, bad := range []SourceFile{{"pool/x/none", 4, sum("data")}, {"pool/x/x_1.orig.tar.xz", 4, sum("DATA")}, {"pool/x/x_1.orig.tar.xz", 4, "MD5Sum:00"}} {
		want.Files[0] = bad
		if _, err := a.Archives(context.Background(), want); err == nil {
			t.Errorf("%+v gave no error", bad)
		}
	}
}
