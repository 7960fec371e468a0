// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"errors"

	"github.com/xcontainer/xcontainer/pkg/shim/task"
)

// Libos are the parts for domains on Xen.
func Libos() Parts {
	err := errors.New("this shim is built without Xen")
	return Parts{
		Boot:    func(context.Context, task.BootConfig) (task.Guest, error) { return nil, err },
		Destroy: func(context.Context, uint16, [16]byte) error { return err },
		Backend: func() error { return err },
	}
}
