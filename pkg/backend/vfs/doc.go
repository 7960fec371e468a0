// SPDX-License-Identifier: Apache-2.0

// Package vfs is the file service of a domain: a FUSE file system over
// directory descriptors, and the gate that FUSE requests of an untrusted guest
// pass through. go-fuse supplies the protocol; what a request may reach on the
// host is decided here.
//
// The root of the file system is synthetic. Exports appear below it under names
// such as "c1/rootfs" and come and go while the guest runs. An export is a
// directory or a single regular file, given as a descriptor; nothing outside it
// can be named:
//
//   - a name is one component, never "", ".", "..", and holds no '/' and no NUL;
//   - a component is resolved by openat2 or statx relative to a descriptor of
//     its directory, without following links of any kind;
//   - only regular files and directories are ever opened, through an O_PATH
//     descriptor whose type was looked at; device nodes, fifos and sockets are
//     stat'ed, created and removed;
//   - extended attributes are user.* and security.capability;
//   - a link or a rename stays within its export.
//
// Each file that the guest knows is a node: device, inode number and time of
// birth, and a name within a parent node. A bounded number of nodes holds an
// O_PATH descriptor; others are opened again by name when they are needed and
// answer ESTALE if something else stands there by then, upon which a Linux guest
// looks the path up afresh.
//
// The package needs CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID,
// CAP_MKNOD and CAP_SETFCAP, a descriptor limit (RLIMIT_NOFILE), and no path: a
// process may enter an empty mount namespace once New has returned. It does not
// map user ids, does not forward locks, and knows no queue and no transport.
package vfs
