// SPDX-License-Identifier: Apache-2.0

// Package apt fetches Debian packages with a private apt configuration.
//
// It runs the machine's apt-get, with sources derived from the machine's own
// mirror, but with lists, caches and package state of its own, so that the
// user's system neither sees nor influences what is fetched here: another
// release's packages can be had without offering them to the user's apt.
// Nothing is installed; Extract unpacks the files of a package.
//
// Source packages come as archives, checked against the signed package lists.
//
// Package lists are fetched once and then kept, so that a second build finds
// the same versions; Update, or a package file that left the mirror, renews
// them.
package apt
