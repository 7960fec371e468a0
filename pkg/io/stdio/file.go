// SPDX-License-Identifier: Apache-2.0

package stdio

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Modes of what is made for a file, less the process's umask.
const (
	fileMode   = 0o644
	parentMode = 0o755
)

// fileSink appends to a file. Several processes may append to the same.
type fileSink struct{ *os.File }

func openFile(name string) (*fileSink, error) {
	if err := os.MkdirAll(filepath.Dir(name), parentMode); err != nil {
		return nil, err
	}
	// Not blocking, since the name may be that of a pipe.
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NONBLOCK|unix.O_NOCTTY, fileMode)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() && fi.Mode()&os.ModeCharDevice == 0 {
		err = refuse("%s is not a file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &fileSink{f}, nil
}

// emptied has nothing to wait for: what is written is in the file.
func (*fileSink) emptied(context.Context) {}
