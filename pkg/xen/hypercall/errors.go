// SPDX-License-Identifier: Apache-2.0

package hypercall

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
)

var (
	// ErrNoXen: this machine does not run under Xen, or not as the domain
	// that may create others, or without the kernel's modules for it.
	ErrNoXen = errors.New("no Xen to create domains with")
	// ErrVersion: Xen is there, with a version this program cannot speak to.
	ErrVersion = errors.New("unsupported Xen version")
	// ErrNoDomain: no domain has that id.
	ErrNoDomain = errors.New("no such domain")
	// ErrNoMemory: Xen has not enough free memory, or the domain has reached
	// its maximum.
	ErrNoMemory = errors.New("not enough free memory in Xen")
	// ErrClosed: the door has been closed.
	ErrClosed = errors.New("closed")
)

// opError names the operation, and gives errno a sentinel identity where there
// is one. It returns nil for nil.
func opError(op string, dom abi.DomID, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ESRCH):
		err = fmt.Errorf("%w: %w", ErrNoDomain, err)
	case errors.Is(err, unix.ENOMEM):
		err = fmt.Errorf("%w: %w", ErrNoMemory, err)
	}
	return fmt.Errorf("%s domain %d: %w", op, dom, err)
}
