// SPDX-License-Identifier: Apache-2.0

// Package suites runs other people's tests in containers, once in each mode of
// X-LibOS, and compares what they say: a program is not to notice the mode.
//
// A [Suite] consists of units that can be run alone, each with a time limit; a unit
// has a number of tests. The name of a test is "UNIT:TEST", or "UNIT" for what the
// unit as a whole came to.
package suites
