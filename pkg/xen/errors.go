// SPDX-License-Identifier: Apache-2.0

package xen

import (
	"errors"
	"fmt"

	"github.com/xcontainer/xcontainer/pkg/xen/hypercall"
)

var (
	// ErrNoXen: this machine is no Xen dom0.
	ErrNoXen = hypercall.ErrNoXen
	// ErrVersion: this Xen is none of 4.17 to 4.20.
	ErrVersion = hypercall.ErrVersion
	// ErrNoMemory: Xen has not enough free memory for the domain.
	ErrNoMemory = hypercall.ErrNoMemory
	// ErrNotFound: the domain is gone, or its id belongs to another one now.
	ErrNotFound = errors.New("domain not found")
	// ErrZombie: the domain has been destroyed, but somebody still maps its
	// memory, so that it does not go away.
	ErrZombie = errors.New("destroyed domain does not go away")
	// ErrConfig: a Config that no domain can be built from.
	ErrConfig = errors.New("bad domain configuration")
	// ErrNotBuilder: only the process that built a domain can do this.
	ErrNotBuilder = errors.New("domain was built by another process")
)

// prefixed names the package in an error that leaves it; nil stays nil.
func prefixed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("xen: %w", err)
}
