// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/cache"
)

// keyring holds the keys of all current Debian releases; it is part of every
// Debian system.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// ErrNotFound means that no configured suite has a package of that name.
var ErrNotFound = errors.New("no such package")

// Apt is one private apt configuration, for one release. Its methods may be
// called from several goroutines and processes; they take turns.
type Apt struct {
	cache   *cache.Cache
	release string
	dir     string // configuration, lists, state
	pool    string // package files of all releases
	mirrors []string
	fetches func(what string)
}

// Deb is a package file in the cache. Its file name (the base of Path) holds
// name, version and architecture and identifies its contents, since a Debian
// archive never changes a file under the same name.
type Deb struct {
	Name    string // package name
	Version string // with epoch
	Path    string // the .deb file
}

// Open prepares the private configuration for a release's code name ("trixie"),
// or for the machine's own release if it is empty. Lists are fetched when they
// are first needed.
func Open(ctx context.Context, c *cache.Cache, release string) (*Apt, error) {
	own, err := machineRelease()
	if err != nil {
		return nil, err
	}
	if release == "" {
		release = own
	}
	text, err := machineTargets(ctx)
	if err != nil {
		return nil, err
	}
	sources := parseTargets(text, own)
	if len(sources) == 0 {
		return nil, fmt.Errorf("apt: this machine has no Debian package source for %s: add one below /etc/apt/sources.list.d", own)
	}
	if release != own {
		sources = forRelease(sources, own, release)
	}
	a := &Apt{
		cache:   c,
		release: release,
		dir:     filepath.Join(c.Root(), "apt", release),
		pool:    filepath.Join(c.Root(), "debs"),
		fetches: func(string) {},
	}
	for _, s := range sources {
		if !slices.Contains(a.mirrors, s.uri) {
			a.mirrors = append(a.mirrors, s.uri)
		}
	}
	unlock, err := a.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := a.configure(sources); err != nil {
		return nil, err
	}
	return a, nil
}

// OnFetch lets f be called before each download. It is to be called before the
// first use of a.
func (a *Apt) OnFetch(f func(what string)) { a.fetches = f }

// Release is the code name of the release that a fetches from.
func (a *Apt) Release() string { return a.release }

// Update fetches the package lists anew.
func (a *Apt) Update(ctx context.Context) error {
	unlock, err := a.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return a.update(ctx)
}

// Download fetches the named packages, without what they depend on, and
// returns them in the same order.
func (a *Apt) Download(ctx context.Context, names ...string) ([]Deb, error) {
	debs, err := a.fetch(ctx, []string{"download"}, nil, names)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]Deb, len(debs))
	for _, d := range debs {
		byName[d.Name] = d
	}
	out := make([]Deb, 0, len(names))
	for _, n := range names {
		d, ok := byName[n]
		if !ok {
			return nil, fmt.Errorf("apt: download %s from %s: %w", n, a.release, ErrNotFound)
		}
		out = append(out, d)
	}
	return out, nil
}

// Closure fetches the named packages and everything that they depend on (not
// what they recommend), in the order of apt's choice.
func (a *Apt) Closure(ctx context.Context, names ...string) ([]Deb, error) {
	return a.fetch(ctx, []string{"install", "--yes", "--no-install-recommends"}, []string{"--download-only"}, names)
}

// fetch asks apt which files a command would get and gets those that are not
// in the pool. The lists are renewed once if the mirror has moved on.
func (a *Apt) fetch(ctx context.Context, verb, act, names []string) ([]Deb, error) {
	unlock, err := a.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	for retried := false; ; retried = true {
		debs, err := a.plan(ctx, verb, names)
		if err == nil {
			if a.havePool(debs) {
				return debs, nil
			}
			a.fetches("download packages: " + few(names))
			args := slices.Concat(verb, act, names)
			if _, err = a.run(ctx, a.pool, args...); err == nil && !a.havePool(debs) {
				err = fmt.Errorf("apt: fetch %s: apt-get succeeded but files are missing", strings.Join(names, " "))
			}
			if err == nil {
				return debs, nil
			}
		}
		if retried || ctx.Err() != nil {
			return nil, err
		}
		if uerr := a.update(ctx); uerr != nil {
			return nil, errors.Join(err, uerr)
		}
	}
}

// plan lists the files that a command would fetch into an empty pool.
func (a *Apt) plan(ctx context.Context, verb, names []string) ([]Deb, error) {
	text, err := a.answer(ctx, verb, names)
	if err != nil {
		return nil, err
	}
	return parseURIs(text, a.pool)
}

// answer is apt's list of the files that a command would fetch. apt takes most
// of a second for an answer that cannot change until the lists do, so answers
// are kept.
func (a *Apt) answer(ctx context.Context, verb, names []string) (string, error) {
	memo := filepath.Join(a.dir, "plans", string(cache.KeyOf(slices.Concat(verb, names)...)))
	if text, err := os.ReadFile(memo); err == nil {
		return string(text), nil
	}
	if _, err := os.Stat(a.stamp()); errors.Is(err, fs.ErrNotExist) {
		if err := a.update(ctx); err != nil {
			return "", err
		}
	}
	text, err := a.ask(ctx, verb, names)
	if err != nil {
		return "", err
	}
	tmp := memo + ".tmp" // the lock is held: no one else writes it
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("apt: keep answer: %w", err)
	}
	if err := os.Rename(tmp, memo); err != nil {
		return "", fmt.Errorf("apt: keep answer: %w", err)
	}
	return text, nil
}

// ask lets apt say what it would fetch.
func (a *Apt) ask(ctx context.Context, verb, names []string) (string, error) {
	// apt does not list files that it finds in its archive directory (install)
	// or in the working directory (download): show it an empty one.
	empty := filepath.Join(a.dir, "none")
	args := append([]string{"-o", "Dir::Cache::archives=" + empty, "--print-uris", "-qq"}, verb...)
	out, err := a.run(ctx, empty, append(args, names...)...)
	if err != nil {
		if strings.Contains(err.Error(), "Unable to locate package") || strings.Contains(err.Error(), "Unable to find a source package") {
			err = fmt.Errorf("%w: %w", ErrNotFound, err)
		}
		return "", err
	}
	return out, nil
}

// havePool reports whether all files are there. apt renames a file to its
// final name only when it is whole and verified.
func (a *Apt) havePool(debs []Deb) bool {
	for _, d := range debs {
		if _, err := os.Stat(d.Path); err != nil {
			return false
		}
	}
	return true
}

// few names at most three of names.
func few(names []string) string {
	const most = 3
	if len(names) > most {
		return strings.Join(names[:most], ", ") + " and others"
	}
	return strings.Join(names, ", ")
}

// parseURIs reads the output of apt-get --print-uris:
// 'URI' FILE SIZE HASH:HEX per line.
func parseURIs(text, pool string) ([]Deb, error) {
	var debs []Deb
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || !strings.HasPrefix(f[0], "'") {
			continue
		}
		if len(f) < 3 {
			return nil, fmt.Errorf("apt: understand apt-get's line %q: too short", line)
		}
		d := Deb{Path: filepath.Join(pool, filepath.Base(f[1]))}
		base := strings.TrimSuffix(filepath.Base(f[1]), ".deb")
		parts := strings.Split(base, "_")
		if len(parts) != 3 {
			return nil, fmt.Errorf("apt: understand file name %q: want name_version_arch.deb", f[1])
		}
		d.Name, d.Version = parts[0], strings.ReplaceAll(parts[1], "%3a", ":")
		debs = append(debs, d)
	}
	return debs, nil
}

// configure writes the configuration files and makes the directories.
func (a *Apt) configure(sources []source) error {
	for _, d := range []string{"state/lists/partial", "cache/archives/partial", "none/partial", "etc", "plans"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return fmt.Errorf("apt: prepare configuration: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Join(a.pool, "partial"), 0o755); err != nil {
		return fmt.Errorf("apt: prepare pool: %w", err)
	}
	keys := keyring
	if _, err := os.Stat(keys); err != nil {
		keys = ""
	}
	list := sourceList(sources, keys)
	if old, err := os.ReadFile(a.file("sources.list")); err == nil && string(old) != list {
		os.Remove(a.stamp()) // another mirror: its lists are not there yet
	}
	files := map[string]string{
		"sources.list": list,
		"status":       "", // nothing is installed, so closures are complete
		"apt.conf":     a.conf(),
	}
	for name, text := range files {
		if err := os.WriteFile(a.file(name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("apt: write configuration: %w", err)
		}
	}
	return nil
}

// conf is read after the machine's own configuration, so proxies and
// certificates stay as the user set them.
func (a *Apt) conf() string {
	return fmt.Sprintf(`#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear APT::Default-Release;
Dir::Etc::SourceList "%[1]s/sources.list";
Dir::Etc::SourceParts "%[1]s/etc";
Dir::Etc::Preferences "%[1]s/preferences";
Dir::Etc::PreferencesParts "%[1]s/etc";
Dir::State "%[1]s/state";
Dir::State::status "%[1]s/status";
Dir::State::extended_states "%[1]s/extended_states";
Dir::Cache "%[1]s/cache";
Dir::Cache::archives "%[2]s";
Dir::Log "%[1]s";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "2";
`, a.dir, a.pool)
}

// update fetches the lists; the lock is held.
func (a *Apt) update(ctx context.Context) error {
	plans, err := filepath.Glob(a.file("plans/*"))
	if err != nil {
		return fmt.Errorf("apt: forget answers: %w", err)
	}
	for _, p := range plans {
		if err := os.Remove(p); err != nil {
			return fmt.Errorf("apt: forget answers: %w", err)
		}
	}
	a.fetches("download the package lists of " + a.release)
	if _, err := a.run(ctx, a.dir, "update", "--error-on=any"); err != nil {
		return err
	}
	if err := os.WriteFile(a.stamp(), nil, 0o644); err != nil {
		return fmt.Errorf("apt: mark lists complete: %w", err)
	}
	return nil
}

// run runs apt-get with the private configuration and returns its output.
func (a *Apt) run(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-c=" + a.file("apt.conf")}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		verb := strings.Join(args, " ")
		return "", fmt.Errorf("apt: apt-get %s (%s): %w: %s", verb, a.release, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

func (a *Apt) lock(ctx context.Context) (func(), error) {
	// One lock for all releases: they share the pool.
	return a.cache.Lock(ctx, "apt")
}

func (a *Apt) file(name string) string { return filepath.Join(a.dir, name) }
func (a *Apt) stamp() string           { return a.file("lists-complete") }

// Extract unpacks the files of a package into dir, as dpkg-deb -x does. No
// maintainer script runs.
func Extract(ctx context.Context, deb Deb, dir string) error {
	out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", deb.Path, dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("apt: extract %s: %w: %s", deb.Path, err, bytes.TrimSpace(out))
	}
	return nil
}
