// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/containerd/containerd/api/types"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// RuntimeName is by which containerd's users ask for this runtime.
const RuntimeName = "io.containerd.xcontainer.v2"

// featuresURL is how containerd names the type of RuntimeInfo.features.
const featuresURL = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"

// Info answers -info. Only what holds is advertised: no user namespaces, no
// id-mapped mounts.
func Info(stdout io.Writer) error {
	version, revision := buildVersion()
	data, err := json.Marshal(offered())
	if err != nil {
		return fmt.Errorf("info: %w", err)
	}
	b, err := proto.Marshal(&types.RuntimeInfo{
		Name:     RuntimeName,
		Version:  &types.RuntimeVersion{Version: version, Revision: revision},
		Features: &anypb.Any{TypeUrl: featuresURL, Value: data},

		Annotations: map[string]string{allowMounts: mountAnnotation()},
	})
	if err != nil {
		return fmt.Errorf("info: %w", err)
	}
	if _, err := stdout.Write(b); err != nil {
		return fmt.Errorf("info: %w", err)
	}
	return nil
}

// Version answers -v, in containerd's form.
func Version(program string, stdout io.Writer) error {
	version, revision := buildVersion()
	info, _ := debug.ReadBuildInfo()
	goVersion := ""
	if info != nil {
		goVersion = info.GoVersion
	}
	_, err := fmt.Fprintf(stdout, "%s:\n  Version:  %s\n  Revision: %s\n  Go version: %s\n\n", program, version, revision, goVersion)
	return err
}

func buildVersion() (version, revision string) {
	version, revision = "unknown", "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version, revision
	}
	if info.Main.Version != "" {
		version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	return version, revision
}
