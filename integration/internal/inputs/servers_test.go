// SPDX-License-Identifier: Apache-2.0

package inputs

import (
	"testing"

	"github.com/xcontainer/xcontainer/integration/internal/apt"
)

func TestGlibcVersion(t *testing.T) {
	debs := []apt.Deb{{Name: "libc-bin", Version: "1-1"}, {Name: "libc6", Version: "2.36-9+deb12u14"}}
	if got, err := glibcVersion(debs); err != nil || got != "2.36" {
		t.Errorf("glibcVersion = %q, %v", got, err)
	}
	if got, err := glibcVersion(debs[:1]); err == nil {
		t.Errorf("glibcVersion without libc6 = %q", got)
	}
}
