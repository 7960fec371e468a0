// SPDX-License-Identifier: Apache-2.0

// Package labcmd is the lab command: it parses arguments, shows progress and
// connects the user's terminal and files to package lab, which does the work.
package labcmd
