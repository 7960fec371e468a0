// SPDX-License-Identifier: Apache-2.0

// Package options reads the options that containerd and its clients give a
// runtime. They come as runc's own message, which clients send to any runtime, or
// as runtimeoptions.v1.Options with a TOML text or the name of a file.
//
// Of runc's options only those that mean something here are heeded; the others
// are named, for the log, and never an error: a client that was written for runc
// must not fail.
package options
