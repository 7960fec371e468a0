// SPDX-License-Identifier: Apache-2.0

// Package labregistry serves the images of an OCI image layout over TLS, under
// the names that a client knows them by, on a machine that reaches nothing else.
// The machine's /etc/hosts leads those names here, and its certificate is the
// only one that clients are told to trust.
package labregistry

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Registry is a registry with the images of one layout. Two hosts must not have
// different images of the same repository: all hosts show the same repositories.
type Registry struct {
	http.Handler
	hosts []string
}

// Load returns a registry with the images of the layout at dir, which must stay
// in place.
func Load(dir string) (*Registry, error) {
	path, err := layout.FromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("registry: open image layout: %w", err)
	}
	idx, err := path.ImageIndex()
	if err != nil {
		return nil, fmt.Errorf("registry: open image layout: %w", err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("registry: read image layout: %w", err)
	}
	r := &Registry{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)),
		registry.WithBlobHandler(registry.NewDiskBlobHandler(filepath.Join(dir, "blobs"))))}
	for _, d := range m.Manifests {
		ref, err := name.NewTag(d.Annotations[ocispec.AnnotationRefName], name.WithDefaultRegistry(""))
		if err != nil {
			return nil, fmt.Errorf("registry: reference of %s: %w", d.Digest, err)
		}
		if err := r.add(path, ref, d); err != nil {
			return nil, fmt.Errorf("registry: add %s: %w", ref, err)
		}
		if h := ref.RegistryStr(); !slices.Contains(r.hosts, h) {
			r.hosts = append(r.hosts, h)
		}
	}
	return r, nil
}

// Hosts returns the names of the registries that the images come from.
func (r *Registry) Hosts() []string { return r.hosts }

// add makes one image known: the manifests of a list before the list.
func (r *Registry) add(path layout.Path, ref name.Tag, d v1.Descriptor) error {
	if d.MediaType.IsIndex() {
		raw, err := path.Bytes(d.Digest)
		if err != nil {
			return err
		}
		list, err := v1.ParseIndexManifest(bytes.NewReader(raw))
		if err != nil {
			return err
		}
		for _, sub := range list.Manifests {
			if err := r.put(path, ref, sub.Digest, sub.MediaType, sub.Digest.String()); err != nil {
				return err
			}
		}
	}
	return r.put(path, ref, d.Digest, d.MediaType, ref.TagStr())
}

// put stores one manifest under a target: a tag or a digest.
func (r *Registry) put(path layout.Path, ref name.Tag, h v1.Hash, mt types.MediaType, target string) error {
	raw, err := path.Bytes(h)
	if err != nil {
		return err
	}
	req := httptest.NewRequest(http.MethodPut, "/v2/"+ref.RepositoryStr()+"/manifests/"+target, bytes.NewReader(raw))
	req.Header.Set("Content-Type", string(mt))
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	if w.Code != http.StatusCreated {
		return fmt.Errorf("manifest %s: status %d: %s", target, w.Code, bytes.TrimSpace(w.Body.Bytes()))
	}
	return nil
}

// Certificate makes a key and a self-signed certificate for hosts that is valid
// for one year, and returns it also in PEM format, for clients to trust.
func Certificate(hosts []string, now time.Time) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("registry: make a key: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: "registry of the lab"},
		NotBefore:             now.Add(-24 * time.Hour),
		NotAfter:              now.AddDate(1, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		DNSNames:              hosts,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("registry: make a certificate: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, text, nil
}
