// SPDX-License-Identifier: Apache-2.0

package main

import (
	"syscall"
	"unsafe"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
)

// sockaddrVM is struct sockaddr_vm of linux/vm_sockets.h.
type sockaddrVM struct {
	family, reserved uint16
	port, cid        uint32
	zero             [4]byte
}

// connect begins a connection to a port of the host.
func connect(fd int, port uint32) error {
	sa := sockaddrVM{family: 40, port: port, cid: agentapi.HostCID}
	_, _, e := syscall.Syscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	if e != 0 {
		return e
	}
	return nil
}
