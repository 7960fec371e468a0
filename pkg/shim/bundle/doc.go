// SPDX-License-Identifier: Apache-2.0

// Package bundle turns an OCI config.json into the settings of a domain and of
// the container in it, and refuses by name what an X-Container cannot do.
//
// It opens no file but config.json, looks at no host path and mounts nothing:
// whether a bind's source exists is for the one who opens it.
package bundle
