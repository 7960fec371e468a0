// SPDX-License-Identifier: Apache-2.0

package stage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

// lookPath finds the file that a command names, as the calling user and in the
// current root and directory. Its errors are the words that runc's users know.
func lookPath(command string, env []string) (string, error) {
	if strings.Contains(command, "/") {
		if err := executable(command); err != nil {
			code := codes.InvalidArgument
			if errors.Is(err, fs.ErrNotExist) {
				code = codes.NotFound
			}
			return "", failf(code, "exec: %q: %v", command, err)
		}
		return command, nil
	}
	for _, dir := range strings.Split(getenv(env, "PATH"), ":") {
		file := path.Join(dir, command)
		if command == "" || executable(file) != nil {
			continue
		}
		if !path.IsAbs(file) {
			return "", failf(codes.InvalidArgument,
				"exec: %q: cannot run executable found relative to current directory", command)
		}
		return file, nil
	}
	return "", failf(codes.NotFound, "exec: %q: executable file not found in $PATH", command)
}

// executable reports why the calling user cannot execute a file.
func executable(file string) error {
	st, err := os.Stat(file)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return unix.EISDIR
	}
	return unix.Access(file, unix.X_OK)
}

// getenv is the value of the last assignment to key, or "".
func getenv(env []string, key string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if k, v, ok := strings.Cut(env[i], "="); ok && k == key {
			return v
		}
	}
	return ""
}

// The ELF header's identification (elf(5)): the byte order is at offset 5
// and the machine is the halfword at offset 18 in that byte order.
const (
	elfMagic      = "\x7fELF"
	elfData       = 5
	elfMachine    = 18
	elfHeaderPart = 20
	elfLittle     = 1
	machineAMD64  = 62
)

// machines names what is found most often in images of other architectures;
// the numbers are those of include/uapi/linux/elf-em.h.
var machines = map[uint16]string{
	3: "386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm",
	machineAMD64: "amd64", 183: "arm64", 243: "riscv", 258: "loongarch",
}

// checkMachine refuses an ELF file for another machine before it is executed,
// so that an image of another architecture fails when it is created. Whatever
// else may be wrong with a file is for the kernel to say.
func checkMachine(file string) error {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // may be executable and not readable
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	var h [elfHeaderPart]byte
	if _, err := io.ReadFull(f, h[:]); err != nil || string(h[:len(elfMagic)]) != elfMagic {
		return nil
	}
	var machine uint16
	if h[elfData] == elfLittle {
		machine = binary.LittleEndian.Uint16(h[elfMachine:])
	} else {
		machine = binary.BigEndian.Uint16(h[elfMachine:])
	}
	if machine == machineAMD64 && h[elfData] == elfLittle {
		return nil
	}
	name := machines[machine]
	if name == "" {
		name = fmt.Sprintf("machine %d", machine)
	}
	return failf(codes.InvalidArgument, "exec %s: exec format error: the file is for %s, the container runs amd64", file, name)
}
