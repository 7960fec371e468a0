// SPDX-License-Identifier: Apache-2.0

package apt

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// source is one suite of a repository.
type source struct {
	uri        string // ends in a slash
	suite      string
	components []string
}

// machineRelease returns the code name of the Debian release that runs here.
func machineRelease() (string, error) {
	const path = "/etc/os-release"
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("apt: find this machine's release: %w", err)
	}
	return codename(string(b), path)
}

// codename finds VERSION_CODENAME in the text of an os-release file.
func codename(text, path string) (string, error) {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return strings.Trim(v, `"'`), nil
		}
	}
	return "", fmt.Errorf("apt: %s names no VERSION_CODENAME: a Debian release is needed", path)
}

// machineTargets asks apt which indexes the machine is configured to use. It
// reads every style of configuration and works before the first apt update.
func machineTargets(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets",
		"--format", "$(CREATED_BY) $(RELEASE) $(COMPONENT) $(REPO_URI)").Output()
	if err != nil {
		return "", fmt.Errorf("apt: list the machine's package sources: %w", err)
	}
	return string(out), nil
}

// parseTargets reads machineTargets' lines and keeps the main suites of
// release: the release, its updates and its security suite.
func parseTargets(text, release string) []source {
	var out []source
	seen := map[string]int{}
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) != 4 || f[0] != "Packages" {
			continue
		}
		suite, comp, uri := f[1], f[2], f[3]
		if !isSuiteOf(suite, release) || comp != "main" {
			continue
		}
		k := uri + " " + suite
		if _, dup := seen[k]; dup {
			continue
		}
		seen[k] = len(out)
		out = append(out, source{uri: uri, suite: suite, components: []string{comp}})
	}
	return out
}

// isSuiteOf reports whether suite is one of release's ordinary suites.
func isSuiteOf(suite, release string) bool {
	switch suite {
	case release, release + "-updates", release + "-security":
		return true
	}
	return false
}

// forRelease turns the machine's sources into those of another release of the
// same mirror.
func forRelease(machine []source, from, to string) []source {
	out := make([]source, len(machine))
	for i, s := range machine {
		s.suite = to + strings.TrimPrefix(s.suite, from)
		out[i] = s
	}
	return out
}

// sourceList renders sources as an apt sources.list with binary and source
// entries, restricted to the package indexes.
func sourceList(sources []source, keyring string) string {
	var b strings.Builder
	sign := ""
	if keyring != "" {
		sign = " signed-by=" + keyring
	}
	for _, s := range sources {
		comps := strings.Join(s.components, " ")
		fmt.Fprintf(&b, "deb [arch=amd64 target=Packages%s] %s %s %s\n", sign, s.uri, s.suite, comps)
		fmt.Fprintf(&b, "deb-src [target=Sources%s] %s %s %s\n", sign, s.uri, s.suite, comps)
	}
	return b.String()
}
