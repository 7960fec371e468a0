// SPDX-License-Identifier: Apache-2.0

// Package tasktest is a domain without Xen for the tests of pkg/shim: an agent,
// spoken to over ttrpc as docs/agent.md says, that runs the container's
// processes on this host. Nothing is contained: it is for trusted commands only.
package tasktest
