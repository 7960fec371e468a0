// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/xcontainer/xcontainer/integration/internal/inputs"
)

// workload is something that is timed in a container: a row of the table.
type workload struct {
	name  string // below its bars, and in notes
	title string // of its row
	image string // that it runs in, or "" for busybox
	// script is for sh in the container; SECONDS is replaced. What prepare does
	// before it, in the same shell, does not count.
	prepare, script string
	unit            unit
	// calls is how many calls one operation makes: the plot shows the time of one.
	calls float64
	// parse finds the times in what the script printed to stdout.
	parse func(stdout string) (figure, error)
}

// figure is how long an operation took, in nanoseconds: in the fastest batch, and
// in all of them.
type figure struct{ best, mean float64 }

// unit is what times are printed in.
type unit struct {
	name string
	ns   float64
	rate bool // of calls, not a time
}

var (
	nanoseconds  = unit{name: "ns", ns: 1}
	milliseconds = unit{name: "ms", ns: 1e6}
)

// Where containers see the program, and have a file system in memory.
const (
	mount  = "/bench"
	memory = "/mem"
)

// timed begins a script that is timed by the program, which takes a workload's name,
// or "run" and a command, for an argument.
const timed = mount + "/" + programName + " SECONDS "

// workloads are all, in the order of the table.
var workloads = []workload{
	sysbench("getpid", "getpid"),
	sysbench("read", "read a byte of /dev/zero"),
	sysbench("write", "write a byte to /dev/null"),
	sysbench("stat", "stat"),
	sysbench("open", "open, close"),
	sysbench("futex", "futex, wake nobody"),
	sysbench("epoll", "epoll_wait, timeout 0"),
	sysbench("signal", "signal to itself"),
	sysbench("mmap", "mmap, touch, munmap"),
	sysbench("pipe", "pipe to a process and back"),
	sysbench("vfork", "vfork, exit, wait"),
	sysbench("fork", "fork, exit, wait"),
	sysbench("exec", "fork, exec, wait"),
	{
		name: "libc", title: "80,000 calls by libc", unit: milliseconds, calls: 80_000,
		script: timed + "libc", parse: parseSysbench,
	},
	{
		name: "dd", title: "dd bs=1 count=200000", unit: milliseconds, calls: 400_000,
		script: timed + "run dd if=/dev/zero of=/dev/null bs=1 count=200000", parse: parseSysbench,
	},
	{
		name: "script", title: "50 commands of a shell script", unit: milliseconds, calls: 50,
		image: inputs.DebianImage, prepare: scriptRoot,
		script: timed + "run chroot " + scriptFolder +
			" /bin/sh -c 'i=0; while [ $i -lt 50 ]; do /bin/true; i=$((i+1)); done'",
		parse: parseSysbench,
	},
}

// scriptRoot makes a root in memory with a shell, a command, and the C library that
// both load: where the container's own root is differs, and would count.
const (
	scriptFolder = memory + "/root"
	scriptRoot   = "mkdir -p " + scriptFolder + `/bin &&
for f in /bin/dash /bin/true /lib64/ld-linux-x86-64.so.2 /lib/x86_64-linux-gnu/libc.so.6; do
	mkdir -p ` + scriptFolder + `${f%/*} && cp $f ` + scriptFolder + `$f || exit
done
mv ` + scriptFolder + "/bin/dash " + scriptFolder + "/bin/sh"
)

// sysbench is a workload of the program that takes so short that it tells the time
// of one.
func sysbench(name, title string) workload {
	return workload{
		name: name, title: title, unit: nanoseconds, calls: 1,
		script: timed + name, parse: parseSysbench,
	}
}

// parseSysbench reads the program's output: the lines "NAME.min VALUE UNIT" and
// "NAME.mean VALUE UNIT", and no other.
func parseSysbench(stdout string) (figure, error) {
	values := map[string]float64{}
	for line := range strings.Lines(stdout) {
		f := strings.Fields(line)
		if len(f) != 3 {
			return figure{}, fmt.Errorf("no figure in %q", line)
		}
		_, which, _ := strings.Cut(f[0], ".")
		v, err := strconv.ParseFloat(f[1], 64)
		if err != nil || !(v > 0) || math.IsInf(v, 0) {
			return figure{}, fmt.Errorf("no time in %q", line)
		}
		switch f[2] {
		case nanoseconds.name:
		case milliseconds.name:
			v *= milliseconds.ns
		default:
			return figure{}, fmt.Errorf("no known unit in %q", line)
		}
		if _, twice := values[which]; twice {
			return figure{}, fmt.Errorf("two figures in %q", stdout)
		}
		values[which] = v
	}
	r := figure{best: values["min"], mean: values["mean"]}
	if len(values) != 2 || r.best == 0 || r.mean == 0 {
		return figure{}, fmt.Errorf("want two figures, min and mean, in %q", stdout)
	}
	return r, nil
}
