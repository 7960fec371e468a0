// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Files in the bundle: the record, and what gets the guest's kernel log.
const (
	Name        = "xcontainer.json"
	ConsoleName = "console.log"
)

// Record is the contents of the file. Zero values stand for what does not exist
// (yet).
type Record struct {
	ID        string    `json:"id"`
	Namespace string    `json:"namespace"`
	Created   time.Time `json:"created"`

	UUID  UUID    `json:"uuid"`            // the domain's handle
	DomID *uint16 `json:"domid,omitempty"` // nil until the domain exists

	Shim    Process `json:"shim"`
	Backend Process `json:"backend,omitzero"`
	Holder  Process `json:"holder,omitzero"`

	// Hooks: the container has poststop hooks, which are still to run.
	Hooks bool `json:"hooks,omitempty"`

	// Cgroups are the folders below /sys/fs/cgroup that the shim made.
	Cgroups []string `json:"cgroups,omitempty"`
}

// UUID is a domain's handle, in JSON as 32 hexadecimal digits.
type UUID [16]byte

// MarshalText implements encoding.TextMarshaler.
func (u UUID) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(u[:])), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (u *UUID) UnmarshalText(b []byte) error {
	if hex.DecodedLen(len(b)) != len(u) {
		return fmt.Errorf("uuid of %d digits", len(b))
	}
	_, err := hex.Decode(u[:], b)
	return err
}

// Write replaces the record of the bundle dir, atomically.
func (r *Record) Write(dir string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	// One shim writes, and not twice at once: the temporary name can be fixed.
	tmp := filepath.Join(dir, "."+Name+".new")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, Name)); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

// Read returns the record of the bundle dir; nil if it has none.
func Read(dir string) (*Record, error) {
	data, err := os.ReadFile(filepath.Join(dir, Name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read record: %w", err)
	}
	r := &Record{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("read record: %s: %w", filepath.Join(dir, Name), err)
	}
	return r, nil
}

// Remove forgets the record of the bundle dir.
func Remove(dir string) error {
	err := os.Remove(filepath.Join(dir, Name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove record: %w", err)
	}
	return nil
}
