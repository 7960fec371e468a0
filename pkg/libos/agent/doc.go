// SPDX-License-Identifier: Apache-2.0

// Package agent is the first process of a guest: it runs the container's
// processes for the host, as docs/agent.md says.
//
// [Boot] prepares the guest and speaks to the host; [New] and [Agent.Serve] are
// the service alone, on any listeners and any directory of exports, which is
// how it runs without a guest. What happens between clone and exec is in the
// package stage. The reaper owns every wait in the process that holds an Agent:
// nothing else in it may wait for children, os/exec included.
//
// Out of scope: networks other than lo, and everything the host decides (which
// mounts, which limits, when the guest ends).
package agent
