// SPDX-License-Identifier: Apache-2.0

package task_test

import (
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"

	"github.com/xcontainer/xcontainer/pkg/shim/bundle"
)

// TestXLibOS: the annotation gets to the domain, and a wrong one to nobody.
func TestXLibOS(t *testing.T) {
	d := newDaemon(t)
	for value, want := range map[string]bundle.XLibOS{"": bundle.XLibOSFull, "full": bundle.XLibOSFull, "entry": bundle.XLibOSEntry, "off": bundle.XLibOSOff} {
		s := spec("sleep", "1000")
		if value != "" {
			s.Annotations = map[string]string{bundle.AnnotationXLibOS: value}
		}
		b := d.bundled("c"+value, false, s)
		b.create()
		if got := d.guest().Config.XLibOS; got != want {
			t.Errorf("annotation %q: the domain gets %q", value, got)
		}
		b.start()
		b.end()
	}
	s := spec("true")
	s.Annotations = map[string]string{bundle.AnnotationXLibOS: "fast"}
	b := d.bundled("bad", false, s)
	_, err := d.task.Create(d.ctx(), b.createRequest())
	const want = `config.json: annotation io.xcontainer.xlibos="fast" is neither full, entry nor off`
	if err = errgrpc.ToNative(err); !is(err, errdefs.ErrInvalidArgument) || err.Error() != want {
		t.Errorf("got %v", err)
	}
}
