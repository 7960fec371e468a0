// SPDX-License-Identifier: Apache-2.0

// Package bootstrap is the short-lived side of the shim: the command line, and
// the actions `start`, `delete` and -info, as containerd 1.6 to 2.4 want them.
//
// It is our own because no release of containerd's shim library answers all of
// these daemons: up to 2.2 they want the address as text, from 2.3 on a protobuf
// message. It builds no domain and serves nothing.
package bootstrap
