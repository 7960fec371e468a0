// SPDX-License-Identifier: Apache-2.0

// Package hostile boots guests that mean harm on real Xen and watches the host.
//
// guest is a kernel of its own, in the place of X-LibOS: it writes garbage to
// the device page, the rings, the events and the console, sends packets and FUSE
// requests that no Linux would send, and searches what it reads for a text that
// lies outside of its exports. agent is a program in the place of the agent, on
// the ordinary kernel: it answers the shim with lies, garbage or nothing.
//
// Whatever they do, the shim and the back-end must not crash, grow or stall, the
// container beside them must not notice, and nothing may be left in the end.
package hostile
