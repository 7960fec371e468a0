// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"reflect"
	"testing"
)

func TestParseTargets(t *testing.T) {
	const text = `Packages bookworm main http://m.example/debian/
DEP-11 bookworm main http://m.example/debian/
Packages bookworm contrib http://m.example/debian/
Packages bookworm-updates main http://m.example/debian/
Packages bookworm-updates main http://m.example/debian/
Packages bookworm-backports main http://m.example/debian/
Packages nodistro main https://other.example/node/
Packages bookworm-security main http://m.example/debian-security/
`
	got := parseTargets(text, "bookworm")
	want := []source{
		{"http://m.example/debian/", "bookworm", []string{"main"}},
		{"http://m.example/debian/", "bookworm-updates", []string{"main"}},
		{"http://m.example/debian-security/", "bookworm-security", []string{"main"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	other := forRelease(got, "bookworm", "trixie")
	for i, suite := range []string{"trixie", "trixie-updates", "trixie-security"} {
		if other[i].suite != suite || other[i].uri != want[i].uri {
			t.Errorf("source %d of the other release is %v, want suite %s", i, other[i], suite)
		}
	}
	list := sourceList(got[:1], "/k.gpg")
	wantList := "deb [arch=amd64 target=Packages signed-by=/k.gpg] http://m.example/debian/ bookworm main\n" +
		"deb-src [target=Sources signed-by=/k.gpg] http://m.example/debian/ bookworm main\n"
	if list != wantList {
		t.Errorf("list:\n%s\nwant:\n%s", list, wantList)
	}
}

func TestCodename(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"ID=debian\nVERSION_CODENAME=bookworm\n", "bookworm"},
		{"VERSION_CODENAME=\"trixie\"", "trixie"},
		{"ID=debian\n", ""},
	} {
		got, err := codename(tc.in, "f")
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("codename(%q) = %q, %v", tc.in, got, err)
		}
	}
}

func TestParseURIs(t *testing.T) {
	const text = "'http://m.example/pool/b/busybox-static_1.35.0-4_amd64.deb' busybox-static_1%3a1.35.0-4_amd64.deb 123 SHA256:ab\n"
	got, err := parseURIs(text, "/pool")
	want := []Deb{{"busybox-static", "1:1.35.0-4", "/pool/busybox-static_1%3a1.35.0-4_amd64.deb"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v\nwant %v", got, err, want)
	}
	for _, bad := range []string{"'u' f", "'u' noversion.deb 1 S:1"} {
		if _, err := parseURIs(bad, "/pool"); err == nil {
			t.Errorf("parseURIs(%q) gave no error", bad)
		}
	}
}
