// SPDX-License-Identifier: Apache-2.0

// Package seccomp compiles the seccomp profile of an OCI configuration to the
// program that seccomp(2) takes, for a guest on x86-64.
//
// The program decides as libseccomp's would with runc's use of it:
//
//   - Rules for one system call are tried in their order and the first whose
//     conditions all hold decides; a rule that says less, and the same otherwise,
//     covers one that says more. With none that holds the default action decides.
//     Two conditions of a rule on the same argument make it one rule for each
//     condition.
//   - x86-64 is always covered. Calls of an architecture that the profile does not
//     list end the thread. i386's socketcall and ipc are covered by the names of
//     what they carry. There an argument has 32 bits, and only those of a value
//     count.
//   - Unknown names are left out: other kernels have other calls.
//   - Where the default action denies, calls above the highest number that the
//     profile names answer ENOSYS: they are newer than the profile, and programs
//     have ways to do without them, but none to do with EPERM.
//
// It looks for a call by a binary search over ranges with the same answer.
package seccomp
