// SPDX-License-Identifier: Apache-2.0

// Package libos boots the library OS of an X-Container in a Xen domain and
// talks to its agent. It joins the toolstack (pkg/xen), the back-end process
// (pkg/backend, run by RunBackend in a child of the same binary) and the
// agent's service (pkg/libos/agentapi).
//
// It knows nothing of containerd, bundles or OCI settings, and it parses no
// guest memory: that is the back-end's part.
package libos
