// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// CopyTo copies a file or directory of this machine into dom0. As with cp -r,
// the copy gets the name dst, or if dst is a directory, its own name inside.
// Links are copied as links; owners become root.
func (l *Lab) CopyTo(ctx context.Context, src, dst string) error {
	abs, err := filepath.Abs(src)
	if err != nil {
		return fmt.Errorf("lab: copy %s: %w", src, err)
	}
	if _, err := os.Lstat(abs); err != nil {
		return fmt.Errorf("lab: copy: %w", err)
	}
	base := filepath.Base(abs)
	// Into a directory beside the target and moved from there, so that a file
	// in use is replaced and not overwritten.
	script := fmt.Sprintf(`set -e; d=%s; b=%s
if [ -d "$d" ]; then d=$d/$b; fi
t=$(mktemp -d "$(dirname "$d")/.lab-cp.XXXXXX"); trap 'rm -rf "$t"' EXIT
tar -C "$t" -xpf -
if [ -d "$t/$b" ] && [ -d "$d" ]; then cp -a "$t/$b/." "$d"; else mv -fT "$t/$b" "$d"; fi`, Quote(dst), Quote(base))
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(writeTar(pw, abs, base)) }()
	r, err := l.Run(ctx, script, pr)
	pr.CloseWithError(errors.New("receiver ended"))
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("%s", bytes.TrimSpace(r.Stderr))
	}
	if err != nil {
		return fmt.Errorf("lab: copy %s to lab:%s: %w", src, dst, err)
	}
	return nil
}

// writeTar writes the tree at root as entries below name.
func writeTar(w io.Writer, root, name string) error {
	tw := tar.NewWriter(w)
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		link := ""
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			if link, err = os.Readlink(p); err != nil {
				return err
			}
		case !info.IsDir() && !info.Mode().IsRegular():
			return fmt.Errorf("%s is neither file, directory nor link", p)
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		h.Name = path.Join(name, filepath.ToSlash(rel))
		h.Uid, h.Gid, h.Uname, h.Gname, h.Format = 0, 0, "", "", tar.FormatPAX
		if err := tw.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(tw, f)
		return err
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

// CopyFrom copies a file or directory of dom0 to this machine, with the naming
// of CopyTo. Nothing is written outside the copy.
func (l *Lab) CopyFrom(ctx context.Context, src, dst string) error {
	src = path.Clean(src)
	base := path.Base(src)
	if st, err := os.Stat(dst); err == nil && st.IsDir() {
		dst = filepath.Join(dst, base)
	}
	fail := func(err error) error { return fmt.Errorf("lab: copy lab:%s to %s: %w", src, dst, err) }
	parent, name := filepath.Split(filepath.Clean(dst))
	if parent == "" {
		parent = "."
	}
	root, err := os.OpenRoot(parent)
	if err != nil {
		return fail(err)
	}
	defer root.Close()
	pr, pw := io.Pipe()
	var stderr bytes.Buffer
	c := l.Command("tar -C " + Quote(path.Dir(src)) + " -cf - -- " + Quote(base))
	c.Stdout, c.Stderr = pw, &stderr
	done := make(chan error, 1)
	go func() {
		err := c.Run(ctx)
		pw.CloseWithError(err)
		done <- err
	}()
	rerr := readTar(pr, root, base, name)
	pr.CloseWithError(errors.New("reader ended"))
	if err := <-done; err != nil {
		return fail(fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes())))
	}
	if rerr != nil {
		return fail(rerr)
	}
	return nil
}

// readTar unpacks entries called from and below into root under the name to.
func readTar(r io.Reader, root *os.Root, from, to string) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, r) // tar's padding
			return err
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path.Clean(h.Name))
		if err != nil || !filepath.IsLocal(rel) {
			return fmt.Errorf("archive has unexpected name %q", h.Name)
		}
		name := filepath.Join(to, rel)
		mode := fs.FileMode(h.Mode & 0o777)
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, mode|0o700)
		case tar.TypeSymlink:
			root.Remove(name)
			err = root.Symlink(h.Linkname, name)
		case tar.TypeReg:
			err = readFile(tr, root, name, mode)
		default:
			err = fmt.Errorf("%s is neither file, directory nor link", h.Name)
		}
		if err != nil {
			return err
		}
	}
}

// readFile replaces one file.
func readFile(r io.Reader, root *os.Root, name string, mode fs.FileMode) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
