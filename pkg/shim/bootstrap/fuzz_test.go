// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"strings"
	"testing"

	bootapi "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"google.golang.org/protobuf/proto"
)

// FuzzDecode gives `start` any input. Whatever it is, the answer is one that a
// daemon of that kind can read, and the socket's path fits in an address.
func FuzzDecode(f *testing.F) {
	dir := "/run/x"
	b, err := proto.Marshal(&bootapi.BootstrapParams{
		InstanceID: "c", Namespace: "n", ContainerdGrpcAddress: "/run/containerd/containerd.sock", SocketDir: &dir,
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Add([]byte("\x0a\x01c\x12\x01n"))
	f.Add([]byte("\x0a\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, input []byte) {
		p := decode(input, Flags{ID: "c", Namespace: "n", Address: "/a"}, func(string) string { return "/t" })
		path, err := socketPath(p.socketDir, p.grpcAddress, "n", "c")
		if err != nil {
			return
		}
		if len(path) > 106 {
			t.Fatalf("socket path %q", path)
		}
		answer, err := p.answer(scheme + path)
		if err != nil {
			return // a path that is no UTF-8
		}
		if !p.bootstrap {
			if string(answer) != scheme+path {
				t.Fatalf("answer %q", answer)
			}
			return
		}
		var m bootapi.BootstrapResult
		if err := proto.Unmarshal(answer, &m); err != nil || m.Address != scheme+path {
			t.Fatalf("answer %q: %v", answer, err)
		}
		if strings.TrimSpace(string(answer)) != string(answer) {
			t.Fatalf("an early daemon would cut %q", answer)
		}
	})
}
