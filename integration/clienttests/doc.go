// SPDX-License-Identifier: Apache-2.0

// Package clienttests runs containerd's own tests of its client in the lab's
// dom0, against any runtime there, and judges the outcome: runc's decides which
// tests the machine can pass at all (runc-passes.txt), and every one of those
// must pass on our runtime or be named, with the reason, in exceptions.txt.
//
// The tests are one program, which starts a containerd of its own. It runs in
// groups of a few tests. Its output is read as it comes, so that a test that
// hangs ends only its group, whose rest is run anew.
package clienttests
