// SPDX-License-Identifier: Apache-2.0

// Package cache keeps downloaded and built artefacts in directories that are
// named after what they were made from.
//
// An entry is either absent or complete: it is built in a temporary directory
// beside its final place, under a lock of its own, and renamed into place at
// the end. An interrupted build therefore restarts from nothing, and two
// processes that want the same entry build it once.
//
// The package does not know what is in an entry, does not expire entries, and
// never changes an entry after it is in place. Users may delete the whole root
// at any time when nothing runs.
package cache
