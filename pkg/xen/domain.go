// SPDX-License-Identifier: Apache-2.0

package xen

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/xcontainer/xcontainer/pkg/xen/abi"
	"github.com/xcontainer/xcontainer/pkg/xen/hypercall"
)

// Waits of Destroy for the last references to a domain's memory to go.
const (
	goneFirstWait = time.Millisecond
	goneMaxWait   = 50 * time.Millisecond
	goneTimeout   = 30 * time.Second
)

// Domain is a domain of this host. Its methods may be used from several
// goroutines; all compare the uuid, so that a domain that came later under the
// same id is never touched.
type Domain struct {
	hv   Hypervisor
	id   abi.DomID
	uuid abi.UUID

	// pausing makes looking at the pause and changing it one step.
	pausing sync.Mutex

	// frames are of all pages, during the build only.
	frames []abi.MFN
	ports  ports
	// share is nil unless this process built the domain.
	share *share
}

// ID is the domain's id.
func (d *Domain) ID() abi.DomID { return d.id }

// UUID is what Config.UUID was.
func (d *Domain) UUID() abi.UUID { return d.uuid }

// Info describes the domain, or is ErrNotFound.
func (d *Domain) Info() (Info, error) {
	info, err := infoOf(d.hv, d.id, d.uuid)
	return info, prefixed(err)
}

// answer turns the hypervisor's word that the domain has gone since we looked
// into ErrNotFound.
func (d *Domain) answer(err error) error {
	if errors.Is(err, hypercall.ErrNoDomain) {
		return fmt.Errorf("xen: domain %d: %w: %w", d.id, ErrNotFound, err)
	}
	return prefixed(err)
}

// Unpause lets the domain run, the first time since it was created or again
// after Pause. One that is not paused is left alone.
func (d *Domain) Unpause() error { return d.setPaused(false, d.hv.UnpauseDomain) }

// Pause stops the domain's virtual CPUs until Unpause; none of them runs any
// more when it returns. One that is paused is left alone: Xen counts pauses, and
// one Unpause is to undo them all.
func (d *Domain) Pause() error { return d.setPaused(true, d.hv.PauseDomain) }

func (d *Domain) setPaused(want bool, change func(abi.DomID) error) error {
	d.pausing.Lock()
	defer d.pausing.Unlock()
	info, err := d.Info()
	if err != nil || info.Paused == want {
		return err
	}
	return d.answer(change(d.id))
}

// SetMaxMemory sets the most memory that the domain may have. It takes nothing
// from a domain that has more; such a domain gets nothing until it has given back
// what is too much.
func (d *Domain) SetMaxMemory(kib uint64) error {
	if err := checkMemory(kib); err != nil {
		return prefixed(fmt.Errorf("set memory limit of domain %d: %w", d.id, err))
	}
	if _, err := d.Info(); err != nil {
		return err
	}
	return d.answer(d.hv.SetMaxMem(d.id, kib+MemorySlackKiB))
}

// SetSchedule gives the domain a weight and cap, as in Config.
func (d *Domain) SetSchedule(weight, limit uint16) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	return d.answer(setSchedule(d.hv, d.id, info.MaxVCPUs, weight, limit))
}

func setSchedule(hv Hypervisor, id abi.DomID, vcpus uint32, weight, limit uint16) error {
	if weight == 0 {
		weight = abi.Credit2WeightNormal
	}
	// Xen refuses a cap that is above what all virtual CPUs could take, and
	// leaves the old one.
	if uint32(limit) > 100*vcpus {
		limit = 0
	}
	return hv.SetCredit2(id, weight, limit)
}

// Destroy ends the domain and waits until it is gone: nil means that it is,
// whoever destroyed it. As long as another process maps its memory the domain
// stays, dead; when ctx or half a minute ends before it goes, that is ErrZombie.
func (d *Domain) Destroy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, goneTimeout)
	defer cancel()
	for wait := goneFirstWait; ; wait = min(2*wait, goneMaxWait) {
		info, err := d.Info()
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err == nil && info.State != Dying {
			err = d.answer(d.hv.DestroyDomain(d.id))
			if err == nil {
				// Look again at once: mostly it is gone.
				info, err = d.Info()
			}
			if errors.Is(err, ErrNotFound) {
				return nil
			}
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("xen: destroy domain %d: %w: %d pages are still mapped: %w", d.id, ErrZombie, info.Pages, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// Watch looks at the domain at once and then every interval, and answers when
// it has shut down, is dying or gone. The error is ctx's, or the hypervisor's.
func (d *Domain) Watch(ctx context.Context, interval time.Duration) (Reason, error) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		info, err := d.Info()
		switch {
		case errors.Is(err, ErrNotFound):
			return Destroyed, nil
		case err != nil:
			return 0, err
		case info.State == Dying:
			return Destroyed, nil
		case info.State == Shutdown:
			return info.Reason, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
	}
}
