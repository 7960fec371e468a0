// SPDX-License-Identifier: Apache-2.0

// Package stdio carries a process's standard streams between what containerd's
// clients name (named pipes, files, logging programs) and the streams into a
// domain.
//
// Output is delivered until its reader has it or has gone. A reader that has gone
// neither stops the process nor kills it: a named pipe keeps the last megabyte
// for one that comes back, a logger's output is dropped. Each stream is copied by
// itself, so one that waits holds up no other. Input ends when CloseStdin says
// so, never because a writer left.
//
// A logger is waited for by its own number alone. What it leaves behind goes to
// the host's init, as after any program; the shim is no subreaper.
//
// It knows nothing of processes, terminals' sizes or the agent: those are the
// task package's.
package stdio
