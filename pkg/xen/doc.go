// SPDX-License-Identifier: Apache-2.0

// Package xen is the toolstack: it builds PV domains with a NoXS device page,
// watches them, hands their shared memory and event channels to a back-end
// process, and destroys them.
//
// It speaks to Xen and to nothing else: there is no XenStore, no libxl and no
// daemon behind it. It knows nothing of containers, and it never reads what a
// guest wrote.
package xen
