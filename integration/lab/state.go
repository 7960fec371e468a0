// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// Files of a state directory.
const (
	stateFile   = "lab.json"
	consoleFile = "console.log"
	failedFile  = "console-failed.log" // of the last boot that failed
	qemuLogFile = "qemu.log"
	keyFile     = "id"
)

// ErrNotRunning means that the lab is not up.
var ErrNotRunning = errors.New("the lab is not running: start it with lab up")

// State is what is known of a running lab; lab.json holds it.
type State struct {
	Pid     int    `json:"pid"`   // of QEMU
	Start   string `json:"start"` // start time of that process, in ticks
	Port    int    `json:"port"`  // of SSH, on 127.0.0.1
	HostKey string `json:"hostKey"`
	Xen     string `json:"xen"` // version or file; empty without Xen
	MemMB   int    `json:"memMB"`
	CPUs    int    `json:"cpus"`
	Payload string `json:"payload"`
	Accel   string `json:"accel"`
	PTI     string `json:"pti,omitempty"` // Options.PTI
}

// alive reports whether the process of s still runs.
func (s *State) alive() bool {
	start, err := procStart(s.Pid)
	return err == nil && start == s.Start
}

// writeState puts s in place at once.
func writeState(dir string, s *State) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("lab: write state: %w", err)
	}
	tmp := filepath.Join(dir, stateFile+".tmp")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("lab: write state: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, stateFile)); err != nil {
		return fmt.Errorf("lab: write state: %w", err)
	}
	return nil
}

// readState returns the state of the lab in dir, or ErrNotRunning if there is
// none or its machine has ended.
func readState(dir string) (*State, error) {
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, fmt.Errorf("lab: read state: %w", err)
	}
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("lab: read state: %s: %w", stateFile, err)
	}
	if !s.alive() {
		return nil, ErrNotRunning
	}
	return &s, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
