// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/xcontainer/xcontainer/pkg/libos/agentapi"
	"github.com/xcontainer/xcontainer/pkg/shim/refusal"
)

// resourcesType is the end of the type url of resources for a Linux container.
const resourcesType = "LinuxResources"

// ParseResources reads the resources of an update as containerd's clients send
// them: a type url and JSON.
func ParseResources(typeURL string, data []byte) (*specs.LinuxResources, error) {
	if kind := typeURL[strings.LastIndexAny(typeURL, "/.")+1:]; kind != resourcesType && typeURL != "" {
		return nil, refusal.New(ErrInvalid, fmt.Sprintf("update: resources of the type %q; an X-Container takes %s", typeURL, resourcesType))
	}
	// A field that this program does not know is a limit that it cannot set.
	var r specs.LinuxResources
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, refusal.New(ErrInvalid, fmt.Sprintf("update: the resources cannot be read (%v)", err))
	}
	return &r, nil
}

// Update is Apply for the resources of an update.
func (l Limits) Update(r *specs.LinuxResources) (next Limits, tell *agentapi.Resources, ignored []string, err error) {
	next, tell, ignored, err = l.Apply(r)
	return next, tell, ignored, within("update", err)
}

// within says where an invalid limit stands; a refusal names its object already.
func within(where string, err error) error {
	if errors.Is(err, ErrInvalid) {
		return refusal.New(ErrInvalid, where+": "+err.Error())
	}
	return err
}
