// SPDX-License-Identifier: Apache-2.0

package hostcgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A process that was killed may take a moment to leave its cgroup.
const (
	removeTries = 6
	removeDelay = 10 * time.Millisecond // doubled each time
)

// Remove removes the folders of a cgroup, which Folders gave, with whatever empty
// cgroups are in them. One that does not exist is no error; one that still has
// processes is. Nothing outside of Root is touched.
func Remove(folders []string) error {
	var errs []error
	for _, dir := range folders {
		if clean := filepath.Clean(dir); !strings.HasPrefix(clean, Root+"/") {
			errs = append(errs, fmt.Errorf("remove cgroup: %s is not below %s", dir, Root))
		} else if err := removeTree(clean); err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w; end the processes in it", clean, err))
		}
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	delay := removeDelay
	for try := 1; ; try++ {
		err := rmdirs(dir)
		if !errors.Is(err, unix.EBUSY) || try == removeTries {
			return err
		}
		time.Sleep(delay)
		delay *= 2
	}
}

// rmdirs removes dir from the leaves up. Files of a cgroup go with its folder.
func rmdirs(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range slices.Backward(dirs) {
		if err := unix.Rmdir(name); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}
