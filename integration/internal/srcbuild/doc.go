// SPDX-License-Identifier: Apache-2.0

// Package srcbuild holds what builds of other projects' source have in common:
// programs that run without the user's environment, a check for missing tools,
// and series of patches.
//
// It knows no project and keeps nothing.
package srcbuild
