// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"testing"

	"github.com/xcontainer/xcontainer/pkg/libos"
	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
)

// TestXLibOSModes: what the annotation says is what a guest is booted with.
func TestXLibOSModes(t *testing.T) {
	for annotation, mode := range map[bundle.XLibOS]libos.XLibOS{
		bundle.XLibOSFull: libos.XLibOSFull, bundle.XLibOSEntry: libos.XLibOSEntry, bundle.XLibOSOff: libos.XLibOSOff,
	} {
		if libos.XLibOS(annotation) != mode {
			t.Errorf("%s is %s for the guest", annotation, mode)
		}
	}
}
