// SPDX-License-Identifier: Apache-2.0

package hostile

import (
	"os"
	"testing"

	"github.com/xcontainer/xcontainer/integration/internal/labrun"
	"github.com/xcontainer/xcontainer/integration/lab"
)

// machine is the lab that all tests share, set by TestMain.
var machine *lab.Lab

func TestMain(m *testing.M) {
	os.Exit(labrun.Tests("hostile", func(l *lab.Lab) { machine = l }, m.Run))
}
