// SPDX-License-Identifier: Apache-2.0

// Package agentapi holds the messages and the ttrpc service between the shim
// and the agent in a domain, generated from agent.proto, and the constants of
// the connection (docs/agent.md). It is for both ends and has no behaviour.
package agentapi

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-ttrpc_out=. --go-ttrpc_opt=paths=source_relative agent.proto

// Constants of docs/agent.md, sections 1 to 3.
const (
	HostCID    = 2    // the host, as the guest sees it
	PortHello  = 1    // on the host
	PortAgent  = 1024 // in the guest: ttrpc
	PortStream = 1025 // in the guest

	HelloMagic  = 0x48414358 // XCAH
	HelloSize   = 32         // bytes
	StreamMagic = 0x54534358 // XCST
	StreamSize  = 16         // bytes of a stream's header
	Version     = 1

	FSTag  = "xcontainer"         // the virtio-fs device
	FSRoot = "/run/xcontainer/fs" // where the agent mounts it
)
