// SPDX-License-Identifier: Apache-2.0

package labregistry

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sample writes a layout with one list of one image.
func sample(t *testing.T, ref string) (dir string, img v1.Image) {
	t.Helper()
	img, err := random.Image(100, 2)
	if err != nil {
		t.Fatal(err)
	}
	idx := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.DockerManifestList), mutate.IndexAddendum{Add: img})
	dir = t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendIndex(idx, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: ref})); err != nil {
		t.Fatal(err)
	}
	return dir, img
}

func TestServesTheLayout(t *testing.T) {
	dir, img := sample(t, "reg.example/some/thing:1.0")
	r, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.Hosts(), []string{"reg.example"}) {
		t.Errorf("hosts %q", r.Hosts())
	}
	m, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	l, err := layers[1].Digest()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{
		"manifests/1.0":           http.StatusOK,
		"manifests/" + m.String(): http.StatusOK,
		"blobs/" + l.String():     http.StatusOK,
		"manifests/2.0":           http.StatusNotFound,
		"blobs/sha256:0000000000000000000000000000000000000000000000000000000000000000": http.StatusNotFound,
	} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v2/some/thing/"+path, nil))
		if w.Code != want {
			t.Errorf("%s: status %d, want %d", path, w.Code, want)
		}
	}
}

func TestRefusesAnImageWithoutName(t *testing.T) {
	dir, _ := sample(t, "")
	if _, err := Load(dir); err == nil {
		t.Error("no error")
	}
	if _, err := Load(t.TempDir()); err == nil {
		t.Error("no error for an empty folder")
	}
}

func TestCertificate(t *testing.T) {
	cert, text, err := Certificate([]string{"reg.example"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatal("the text is no certificate")
	}
	a, b := net.Pipe()
	go func() {
		s := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{cert}})
		io.WriteString(s, "hello")
		s.Close()
	}()
	got, err := io.ReadAll(tls.Client(b, &tls.Config{RootCAs: pool, ServerName: "reg.example"}))
	if err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}
