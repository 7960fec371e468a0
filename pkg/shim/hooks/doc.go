// SPDX-License-Identifier: Apache-2.0

// Package hooks runs the hooks of an OCI configuration that belong to the host:
// prestart, createRuntime, createContainer, poststart and poststop. Hooks of the
// container's own (startContainer) are the guest's.
package hooks
