// SPDX-License-Identifier: Apache-2.0

// Package refusal makes errors in words for the user, which are one sentence, with
// an identity for errors.Is that does not show in it.
package refusal

type refusal struct {
	kind error
	text string
}

// New returns an error that is kind and says text.
func New(kind error, text string) error { return &refusal{kind, text} }

func (r *refusal) Error() string { return r.text }

// Unwrap gives the identity.
func (r *refusal) Unwrap() error { return r.kind }
