// SPDX-License-Identifier: Apache-2.0

package libos

import "fmt"

// XLibOS is how far a guest's programs get to their kernel without Xen.
type XLibOS string

// Modes. The zero value is XLibOSFull.
const (
	// XLibOSFull: a program can call the kernel like a function, and its system
	// calls are rewritten into such calls.
	XLibOSFull XLibOS = "full"
	// XLibOSEntry: it can, but nothing is rewritten.
	XLibOSEntry XLibOS = "entry"
	// XLibOSOff: every system call goes through Xen, as in any PV guest.
	XLibOSOff XLibOS = "off"
)

// option is what the guest's kernel is told, with a space before it; nothing for
// what it does by itself.
func (x XLibOS) option() (string, error) {
	switch x {
	case "", XLibOSFull:
		return "", nil
	case XLibOSEntry, XLibOSOff:
		return " xlibos=" + string(x), nil
	}
	return "", fmt.Errorf("X-LibOS mode %q is neither %s, %s nor %s", string(x), XLibOSFull, XLibOSEntry, XLibOSOff)
}
