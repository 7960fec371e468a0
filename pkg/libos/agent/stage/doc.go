// SPDX-License-Identifier: Apache-2.0

// Package stage is the second stage of the agent: the code that runs between
// the clone of a new process and the exec of what the container asked for.
//
// The agent starts its own binary once more with the name [Name]. That process
// already lives in the container's pid namespace and cgroup; it builds or joins
// the other namespaces, mounts the root, takes the user's identity, and execs.
// It talks to the agent over one socket, descriptor 3, with the frames of this
// package; the socket closes at the exec, which is how the agent learns that
// the exec has succeeded.
//
// Everything here runs on the main thread of the process, which init locks:
// namespaces, credentials and capabilities belong to a thread, and the thread
// that execs decides what the program gets.
//
// Out of scope: stdio copying, waiting for the program, signals, cgroup limits.
// The agent does those; of processes only the hooks that come before the program
// are run and waited for here.
package stage
