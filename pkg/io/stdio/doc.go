// SPDX-License-Identifier: Apache-2.0

// Package stdio carries a process's standard streams between the named pipes
// that containerd's clients made and the streams into a domain.
//
// Output is delivered until its reader has it or has gone; a reader that has
// gone neither stops the process nor kills it, and one that comes back finds
// the last output that the pipe could hold. Input ends when CloseStdin says so,
// never because a writer left.
//
// It knows nothing of processes, terminals' sizes or the agent: those are the
// task package's.
package stdio
