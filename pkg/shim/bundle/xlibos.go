// SPDX-License-Identifier: Apache-2.0

package bundle

import "github.com/opencontainers/runtime-spec/specs-go"

// AnnotationXLibOS says how far the container's programs get to their kernel
// without Xen.
const AnnotationXLibOS = "io.xcontainer.xlibos"

// XLibOS is a value of AnnotationXLibOS.
type XLibOS string

// Values of AnnotationXLibOS.
const (
	XLibOSFull  XLibOS = "full"  // they call it, and system calls are rewritten into such calls; the default
	XLibOSEntry XLibOS = "entry" // they can call it, but nothing is rewritten
	XLibOSOff   XLibOS = "off"   // not at all, as in any PV guest
)

func (s *Settings) xlibos(spec *specs.Spec) error {
	switch v := XLibOS(spec.Annotations[AnnotationXLibOS]); v {
	case "":
		s.XLibOS = XLibOSFull
	case XLibOSFull, XLibOSEntry, XLibOSOff:
		s.XLibOS = v
	default:
		return invalid("annotation %s=%q is neither %s, %s nor %s", AnnotationXLibOS, string(v), XLibOSFull, XLibOSEntry, XLibOSOff)
	}
	return nil
}
