// SPDX-License-Identifier: Apache-2.0

package kernelbuild

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/xcontainer/xcontainer/integration/internal/srcbuild"
)

// agentPackage is the agent's main package, from the top of the checkout.
const agentPackage = "./cmd/xcontainer-agent"

// Initramfs returns an initramfs whose /init is the program agent. Besides it
// has /dev/console, which the kernel gives /init as its standard streams, and
// /dev/null, which Go takes instead where there is no console. It may be compressed: that makes the file a third as large, and the boot longer.
func Initramfs(agent []byte, compress bool) ([]byte, error) {
	var out bytes.Buffer
	err := writeCPIO(&out, []entry{
		{name: "dev", mode: unix.S_IFDIR | 0o755},
		{name: "dev/console", mode: unix.S_IFCHR | 0o600, major: 5, minor: 1},
		{name: "dev/null", mode: unix.S_IFCHR | 0o666, major: 1, minor: 3},
		{name: "init", mode: unix.S_IFREG | 0o755, data: agent},
	})
	if err != nil || !compress {
		return out.Bytes(), err
	}
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(out.Bytes())
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("kernelbuild: compress initramfs: %w", err)
	}
	return z.Bytes(), nil
}

// Agent builds the agent's static binary from the project tree at checkout.
func Agent(ctx context.Context, checkout string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "xcontainer-agent-")
	if err != nil {
		return nil, fmt.Errorf("kernelbuild: build agent: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "init")
	cmd := goCommand(ctx, checkout, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", path, agentPackage)
	if _, err := srcbuild.Output(cmd); err != nil {
		return nil, fmt.Errorf("kernelbuild: build agent: %w", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("kernelbuild: build agent: %w", err)
	}
	return b, nil
}

// describeAgent fills a manifest from what the binary says of itself.
func describeAgent(ctx context.Context, checkout string, agent, initramfs []byte) (*InitramfsManifest, error) {
	info, err := buildinfo.Read(bytes.NewReader(agent))
	if err != nil {
		return nil, fmt.Errorf("kernelbuild: describe agent: %w", err)
	}
	m := &InitramfsManifest{
		SHA256:      hash(initramfs),
		AgentSHA256: hash(agent),
		GoVersion:   info.GoVersion,
		Licence:     agentLicence,
		Modules:     []Module{{Path: "std", Version: info.GoVersion, Licence: "BSD-3-Clause"}},
	}
	for _, d := range info.Deps {
		dir, err := srcbuild.Output(goCommand(ctx, checkout, "list", "-m", "-f", "{{.Dir}}", d.Path))
		if err != nil {
			return nil, fmt.Errorf("kernelbuild: licence of %s: %w", d.Path, err)
		}
		licence, err := moduleLicence(strings.TrimSpace(dir))
		if err != nil {
			return nil, err
		}
		m.Modules = append(m.Modules, Module{Path: d.Path, Version: d.Version, Licence: licence})
	}
	return m, nil
}

// moduleLicence recognises the licence file of the module in dir by a sentence
// of it; "see LICENSE" if it cannot.
func moduleLicence(dir string) (string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "LICEN[CS]E*"))
	if err != nil || len(files) == 0 {
		return "", fmt.Errorf("kernelbuild: module in %s has no licence file", dir)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		return "", fmt.Errorf("kernelbuild: read licence: %w", err)
	}
	text := strings.Join(strings.Fields(string(b)), " ")
	for _, l := range []struct{ sentence, name string }{
		{"Apache License Version 2.0", "Apache-2.0"},
		{"Neither the name of", "BSD-3-Clause"},
		{"Redistribution and use in source and binary forms", "BSD-2-Clause"},
		{"Permission is hereby granted, free of charge", "MIT"},
	} {
		if strings.Contains(text, l.sentence) {
			return l.name, nil
		}
	}
	return "see LICENSE", nil
}

// goCommand runs the go tool for the target, whatever the user's settings are.
func goCommand(ctx context.Context, checkout string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = checkout
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=", "LC_ALL=C")
	return cmd
}
