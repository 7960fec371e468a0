// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/inputs"
)

// Limits and defaults of a machine's size.
const (
	DefaultMemMB = 4096
	DefaultCPUs  = 2
	minMemMB     = 2048
	dom0MemMB    = 1024
)

// EnvName names the environment variable that selects a lab by name.
const EnvName = "XCONTAINER_LAB"

// Options say which machine to run. Zero fields take the defaults.
type Options struct {
	// Checkout is the project tree that the lab belongs to; default: the one
	// around the working directory.
	Checkout string
	// Name tells several labs of one checkout apart; default: $XCONTAINER_LAB,
	// or "default".
	Name string
	// Cache is the directory of downloads and builds; see package cache.
	Cache string
	// Xen is a version ("4.17", "4.20"), an X-Kernel ("xkernel", "xkernel-4.20"),
	// which is built if need be, or a file; default inputs.DefaultXen.
	Xen string
	// NoXen boots the same dom0 on plain Linux, with no hypervisor.
	NoXen bool
	// PTI, "on" or "off", forces Linux's page table isolation; "" leaves it to
	// the kernel. Only with NoXen: under Xen it is the hypervisor's affair.
	PTI string
	// MemMB is the memory of the whole machine in MiB, of which dom0 gets 1024.
	MemMB int
	// CPUs is the number of physical CPUs that Xen sees.
	CPUs int
	// Payload is the folder that dom0 has as /opt/xcontainer; default
	// build/payload in the checkout.
	Payload string
	// Shares are further folders that dom0 may mount read-only, by 9p mount tag;
	// see Mount.
	Shares map[string]string
	// LinuxArgs is appended to the dom0 kernel's command line.
	LinuxArgs string
	// XenArgs is appended to Xen's command line.
	XenArgs string
	// Progress, if not nil, is called with what happens before it happens.
	Progress func(what string)
}

// ErrNoCheckout means that the working directory is in no checkout.
var ErrNoCheckout = errors.New("not inside a checkout of xcontainer")

// modulePath is how a checkout is recognised.
const modulePath = "module github.com/xcontainer/xcontainer\n"

// FindCheckout returns the checkout around dir.
func FindCheckout(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("lab: find checkout: %w", err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		if b, err := os.ReadFile(filepath.Join(d, "go.mod")); err == nil && strings.HasPrefix(string(b), modulePath) {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("lab: %s: %w", dir, ErrNoCheckout)
		}
	}
}

// goodLabName keeps names fit for a path.
var goodLabName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

// withDefaults fills and checks o.
func (o Options) withDefaults() (Options, error) {
	if o.Checkout == "" {
		dir, err := FindCheckout(".")
		if err != nil {
			return o, err
		}
		o.Checkout = dir
	}
	if o.Name == "" {
		o.Name = os.Getenv(EnvName)
	}
	if o.Name == "" {
		o.Name = "default"
	}
	if !goodLabName.MatchString(o.Name) {
		return o, fmt.Errorf("lab: name %q: use up to 32 lower-case letters, digits, - and _", o.Name)
	}
	if err := o.checkSystem(); err != nil {
		return o, err
	}
	if o.Xen == "" {
		o.Xen = inputs.DefaultXen
	}
	if o.MemMB == 0 {
		o.MemMB = DefaultMemMB
	}
	if o.MemMB < minMemMB {
		return o, fmt.Errorf("lab: %d MiB of memory are too few, use at least %d", o.MemMB, minMemMB)
	}
	if o.CPUs == 0 {
		o.CPUs = DefaultCPUs
	}
	if o.CPUs < 1 || o.CPUs > 64 {
		return o, fmt.Errorf("lab: %d CPUs: use 1 to 64", o.CPUs)
	}
	if o.Payload == "" {
		o.Payload = filepath.Join(o.Checkout, "build", "payload")
	}
	var err error
	if o.Payload, err = filepath.Abs(o.Payload); err != nil {
		return o, fmt.Errorf("lab: payload folder: %w", err)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return o, nil
}

// checkSystem refuses settings of a hypervisor without one, and the other way
// round, rather than ignoring them.
func (o Options) checkSystem() error {
	switch {
	case o.NoXen && o.Xen != "":
		return fmt.Errorf("lab: Xen %s and no Xen at once: give one of --xen and --no-xen", o.Xen)
	case o.NoXen && o.XenArgs != "":
		return fmt.Errorf("lab: arguments for Xen without Xen: leave --xen-args or --no-xen out")
	case o.PTI == "":
		return nil
	case o.PTI != "on" && o.PTI != "off":
		return fmt.Errorf("lab: --pti=%s: use on or off", o.PTI)
	case !o.NoXen:
		return fmt.Errorf("lab: --pti=%s needs --no-xen: a dom0 under Xen has no page table isolation of its own", o.PTI)
	}
	for _, arg := range strings.Fields(o.LinuxArgs) {
		if arg == "nopti" || strings.HasPrefix(arg, "pti=") || strings.HasPrefix(arg, "mitigations=") {
			return fmt.Errorf("lab: --pti=%s and %s in --linux-args: give one of the two", o.PTI, arg)
		}
	}
	return nil
}

// stateDir is where the running lab's files are: below $XDG_STATE_HOME, named
// after the checkout's path and the lab's name.
func (o Options) stateDir() (string, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("lab: find the user's state directory: %w", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	real, err := filepath.EvalSymlinks(o.Checkout)
	if err != nil {
		return "", fmt.Errorf("lab: checkout: %w", err)
	}
	sum := sha256.Sum256([]byte(real))
	return filepath.Join(base, "xcontainer", "lab-"+hex.EncodeToString(sum[:6])+"-"+o.Name), nil
}
