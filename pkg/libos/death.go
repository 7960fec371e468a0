// SPDX-License-Identifier: Apache-2.0

package libos

import (
	"errors"
	"fmt"
)

// How a guest ended that nobody had asked to end. Guest.Death matches one of them.
var (
	ErrCrashed   = errors.New("the guest kernel crashed")
	ErrDestroyed = errors.New("the domain was destroyed from outside")
	ErrStopped   = errors.New("the guest shut itself down")
	ErrBackend   = errors.New("the domain's back-end process ended")
)

// CrashError is the end of a guest by its own doing, with the end of its kernel
// log: what a person needs who looks for the cause.
type CrashError struct {
	Err     error
	Console string // printable, several lines
}

// Error is Err's text; the log is too long for one.
func (e *CrashError) Error() string { return e.Err.Error() }

// Unwrap gives Err.
func (e *CrashError) Unwrap() error { return e.Err }

// deathError says how the guest ended, with the kernel's last words for a crash.
func deathError(kind error, detail, lastLine string) error {
	err := kind
	if detail != "" {
		err = fmt.Errorf("%w: %s", err, detail)
	}
	if lastLine != "" && !errors.Is(kind, ErrDestroyed) {
		err = fmt.Errorf("%w; last line of its console: %q", err, lastLine)
	}
	return err
}
