// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// SourcePackage is a source package in the cache.
type SourcePackage struct {
	Name    string
	Version string // without epoch
	// Files are its archives: upstream's and Debian's changes to it.
	Files []SourceFile
}

// SourceFile is one archive of a source package.
type SourceFile struct {
	Path string
	Size int64
	// Hash is the algorithm and the hex sum, as the package list has them:
	// "SHA256:…".
	Hash string
}

// ErrNotServed means that the mirror lacks a file that its package lists have.
var ErrNotServed = errors.New("not on the mirror")

// aptHelper downloads a file as apt does, with the user's proxies. It is part of
// the package apt.
var aptHelper = "/usr/lib/apt/apt-helper" // a test has another

// errDamaged means that a file is not the one that the package list describes.
var errDamaged = errors.New("contents differ from the package list")

// Source fetches the archives of a source package, in the newest version that
// the release has. Each is checked against the package list, which is signed.
//
// The .dsc is not among them: it repeats what the package list says, and there
// are mirrors that have the archives without it. If the mirror lacks an archive,
// the error wraps ErrNotServed, and the result still says what was wanted.
func (a *Apt) Source(ctx context.Context, name string) (SourcePackage, error) {
	unlock, err := a.lock(ctx)
	if err != nil {
		return SourcePackage{}, err
	}
	defer unlock()
	s, err := a.planSource(ctx, name)
	if err == nil {
		if _, merr := os.Stat(a.missing(s)); merr == nil {
			return s, fmt.Errorf("apt: source of %s %s: %w", s.Name, s.Version, ErrNotServed)
		}
		if err = a.fetchSource(ctx, s); err == nil {
			return s, nil
		}
	}
	if ctx.Err() != nil {
		return SourcePackage{}, err
	}
	// The mirror may have moved on since the lists were fetched.
	if uerr := a.update(ctx); uerr != nil {
		return SourcePackage{}, errors.Join(err, uerr)
	}
	if s, err = a.planSource(ctx, name); err != nil {
		return SourcePackage{}, err
	}
	if err = a.fetchSource(ctx, s); err == nil || ctx.Err() != nil || !s.refused(err) {
		return s, err
	}
	if merr := os.WriteFile(a.missing(s), nil, 0o644); merr != nil {
		return SourcePackage{}, fmt.Errorf("apt: keep answer: %w", merr)
	}
	return s, fmt.Errorf("apt: source of %s %s: %w: %w", s.Name, s.Version, ErrNotServed, err)
}

// refusal is a line of apt-get's about a file that a mirror says it does not have.
var refusal = regexp.MustCompile(`Failed to fetch (\S+)\s+(?:403|404|410)\s`)

// refused tells whether err, of apt-get, is that a mirror does not have an archive of
// s. Lost connections and full disks are something else.
func (s SourcePackage) refused(err error) bool {
	for _, m := range refusal.FindAllStringSubmatch(err.Error(), -1) {
		name, uerr := url.PathUnescape(path.Base(m[1]))
		if uerr == nil && slices.ContainsFunc(s.Files, func(f SourceFile) bool { return filepath.Base(f.Path) == name }) {
			return true
		}
	}
	return false
}

// missing is there when the mirror did not have what its package lists say. It
// goes when they are renewed, which is what else could help.
func (a *Apt) missing(s SourcePackage) string {
	return a.file("plans/" + s.Name + "_" + s.Version + ".missing")
}

// Archives fetches a source package whose archives are known beforehand: each
// Path is relative to the root of a Debian archive. They come from whichever of
// the release's mirrors has them, even if its package lists do not, and are
// checked against the sums that are given here.
func (a *Apt) Archives(ctx context.Context, s SourcePackage) (SourcePackage, error) {
	unlock, err := a.lock(ctx)
	if err != nil {
		return SourcePackage{}, err
	}
	defer unlock()
	files := make([]SourceFile, len(s.Files))
	for i, f := range s.Files {
		files[i] = SourceFile{filepath.Join(a.sources(), filepath.Base(f.Path)), f.Size, f.Hash}
		if files[i].check() == nil {
			continue
		}
		if err := os.MkdirAll(a.sources(), 0o755); err != nil {
			return SourcePackage{}, fmt.Errorf("apt: prepare the folder of sources: %w", err)
		}
		a.fetches("download " + filepath.Base(f.Path))
		if err := a.fetchArchive(ctx, f.Path, files[i]); err != nil {
			return SourcePackage{}, err
		}
	}
	s.Files = files
	return s, nil
}

// fetchArchive tries the mirrors in turn.
func (a *Apt) fetchArchive(ctx context.Context, path string, to SourceFile) error {
	var all error
	for _, m := range a.mirrors {
		os.Remove(to.Path)
		cmd := exec.CommandContext(ctx, aptHelper, "-c="+a.file("apt.conf"), "download-file", m+path, to.Path)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		if err == nil {
			err = to.check()
		} else {
			err = fmt.Errorf("apt: download %s%s: %w: %s", m, path, err, bytes.TrimSpace(out))
		}
		if err == nil || ctx.Err() != nil {
			return err
		}
		all = errors.Join(all, err)
	}
	os.Remove(to.Path)
	return all
}

// planSource lists what the source package consists of.
func (a *Apt) planSource(ctx context.Context, name string) (SourcePackage, error) {
	text, err := a.answer(ctx, []string{"source"}, []string{name})
	if err != nil {
		return SourcePackage{}, err
	}
	return parseSource(text, name, a.sources())
}

// fetchSource downloads the files that are not there yet.
func (a *Apt) fetchSource(ctx context.Context, s SourcePackage) error {
	if s.check() == nil {
		return nil
	}
	if err := os.MkdirAll(a.sources(), 0o755); err != nil {
		return fmt.Errorf("apt: prepare the folder of sources: %w", err)
	}
	// apt-get would go on where a damaged file ends.
	for _, f := range s.Files {
		if f.check() != nil {
			os.Remove(f.Path)
		}
	}
	a.fetches("download the source of " + s.Name)
	_, err := a.run(ctx, a.sources(), "source", "--download-only", s.Name)
	// It fails for a missing .dsc, too. What counts is what is there now.
	if cerr := s.check(); cerr != nil {
		return errors.Join(cerr, err)
	}
	return nil
}

// sources is the folder of source archives of all releases.
func (a *Apt) sources() string { return filepath.Join(a.cache.Root(), "sources") }

// check reads all files and compares them with the package list.
func (s SourcePackage) check() error {
	for _, f := range s.Files {
		if err := f.check(); err != nil {
			return err
		}
	}
	return nil
}

func (f SourceFile) check() error {
	fail := func(err error) error { return fmt.Errorf("apt: check %s: %w", filepath.Base(f.Path), err) }
	h, want, err := newHash(f.Hash)
	if err != nil {
		return fail(err)
	}
	r, err := os.Open(f.Path)
	if err != nil {
		return fail(err)
	}
	defer r.Close()
	n, err := io.Copy(h, r)
	if err != nil {
		return fail(err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); n != f.Size || got != want {
		return fail(fmt.Errorf("%w: %d bytes, %s; want %d bytes, %s", errDamaged, n, got, f.Size, want))
	}
	return nil
}

// newHash takes "ALGORITHM:HEX" apart.
func newHash(text string) (h hash.Hash, sum string, err error) {
	name, sum, _ := strings.Cut(text, ":")
	switch name {
	case "SHA256":
		h = sha256.New()
	case "SHA512":
		h = sha512.New()
	default:
		return nil, "", fmt.Errorf("no safe checksum: %q", text)
	}
	if len(sum) != 2*h.Size() {
		return nil, "", fmt.Errorf("checksum %q has the wrong length", text)
	}
	return h, sum, nil
}

// parseSource reads the output of apt-get source --print-uris.
func parseSource(text, name, dir string) (SourcePackage, error) {
	s := SourcePackage{Name: name}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || !strings.HasPrefix(f[0], "'") {
			continue
		}
		if len(f) != 4 {
			return SourcePackage{}, fmt.Errorf("apt: understand apt-get's line %q: want URI, file, size and checksum", line)
		}
		base := filepath.Base(f[1])
		if v, ok := strings.CutSuffix(base, ".dsc"); ok {
			s.Version, _ = strings.CutPrefix(v, name+"_")
			continue
		}
		size, err := strconv.ParseInt(f[2], 10, 64)
		if err == nil {
			_, _, err = newHash(f[3])
		}
		if err != nil {
			return SourcePackage{}, fmt.Errorf("apt: understand apt-get's line %q: %w", line, err)
		}
		if strings.HasSuffix(base, ".asc") {
			continue // upstream's signature, if Debian has it
		}
		s.Files = append(s.Files, SourceFile{Path: filepath.Join(dir, base), Size: size, Hash: f[3]})
	}
	if s.Version == "" || len(s.Files) == 0 {
		return SourcePackage{}, fmt.Errorf("apt: source of %s: %w", name, ErrNotFound)
	}
	return s, nil
}
