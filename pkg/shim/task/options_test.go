// SPDX-License-Identifier: Apache-2.0

package task_test

import (
	"strings"
	"testing"

	"github.com/containerd/containerd/api/types/runc/options"
	runtimeoptions "github.com/containerd/containerd/api/types/runtimeoptions/v1"
	"github.com/containerd/log"
	"github.com/containerd/typeurl/v2"
	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
	"google.golang.org/protobuf/types/known/anypb"
)

// TestTaskOptions: what clients of runc send fails nothing, and is named in the log.
func TestTaskOptions(t *testing.T) {
	d := newDaemon(t)
	hook := test.NewLocal(log.L.Logger)
	t.Cleanup(func() { log.L.Logger.ReplaceHooks(make(logrus.LevelHooks)) })
	runc, err := typeurl.MarshalAnyToProto(&options.Options{BinaryName: "/none", IoUid: 7, ShimCgroup: "/x", SystemdCgroup: true, CriuImagePath: "/c"})
	if err != nil {
		t.Fatal(err)
	}
	generic, err := typeurl.MarshalAnyToProto(&runtimeoptions.Options{ConfigBody: []byte("X = 1")})
	if err != nil {
		t.Fatal(err)
	}
	for id, tt := range map[string]struct {
		a    *anypb.Any
		want []string
	}{
		"runc":    {runc, []string{"binary_name", "criu_image_path", "io_uid", "systemd_cgroup"}},
		"generic": {generic, []string{`the option "X"`}},
		"broken":  {&anypb.Any{TypeUrl: runc.TypeUrl, Value: []byte{0xff}}, []string{"options that cannot be read"}},
		"other":   {&anypb.Any{TypeUrl: "a.B"}, []string{`of type "a.B"`}},
	} {
		hook.Reset()
		b := d.bundled(id, false, spec("true"))
		r := b.createRequest()
		r.Options = tt.a
		if _, err := d.task.Create(d.ctx(), r); err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		b.start()
		b.wait("")
		b.delete("")
		var said []string
		for _, e := range hook.AllEntries() {
			if what, ok := strings.CutPrefix(e.Message, "ignored: "); ok {
				said = append(said, what)
			}
		}
		if len(said) != len(tt.want) {
			t.Errorf("%s: the log has %q", id, said)
			continue
		}
		for i, want := range tt.want {
			if !strings.Contains(said[i], want) {
				t.Errorf("%s: the log has %q, want %q", id, said, tt.want)
			}
		}
	}
}
