// SPDX-License-Identifier: Apache-2.0

// Package statsapi holds what the metrics of an X-Container's task say that metrics
// of cgroups have no place for, generated from syscalls.proto.
package statsapi

//go:generate protoc --go_out=. --go_opt=paths=source_relative syscalls.proto
