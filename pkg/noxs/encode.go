// SPDX-License-Identifier: Apache-2.0

package noxs

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrLayout is the identity of every error about a layout that cannot be
// encoded.
var ErrLayout = errors.New("bad device layout")

// Device is what the toolstack decides about one device.
type Device struct {
	ID         uint32   // virtio device id
	Port       uint32   // the guest's event channel
	Features   uint64   // feature bits offered
	Queues     []uint32 // num_max of each queue; 0 = no such queue
	Config     []byte   // config space, at most MaxConfig bytes
	SectionOff uint32   // first pool page of the device's section
	OutPages   uint32   // pages for rings and guest-to-device buffers
	InPages    uint32   // pages for device-to-guest buffers, after the out pages
}

// Layout is the content of a device page before the guest runs.
type Layout struct {
	PoolPages    uint32
	DoorbellPort uint32 // the guest's event channel for guest_state; 0 = none
	Devices      []Device
}

// Standard returns the devices of version 1 (docs/noxs.md 7): entry 0 is
// vsock, entry 1 the file system. All ports are zero and must be filled in
// before Encode.
func Standard() Layout {
	vsockConfig := make([]byte, 8)
	binary.LittleEndian.PutUint64(vsockConfig, GuestCID)
	fsConfig := make([]byte, 40)
	copy(fsConfig, FSTag)
	binary.LittleEndian.PutUint32(fsConfig[36:], 1)
	return Layout{
		PoolPages: 580,
		Devices: []Device{{
			ID:       DeviceVsock,
			Features: FeaturesOffered,
			Queues:   []uint32{128, 128, 8},
			Config:   vsockConfig,
			OutPages: 128,
			InPages:  144,
		}, {
			ID:         DeviceFS,
			Features:   FeaturesOffered,
			Queues:     []uint32{16, 128},
			Config:     fsConfig,
			SectionOff: 272,
			OutPages:   164,
			InPages:    144,
		}},
	}
}

// Encode returns the device page of layout l, PageSize bytes. Every device
// needs a port. Errors match ErrLayout.
func Encode(l Layout, seed [SeedSize]byte) ([]byte, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	if err := l.validatePorts(); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	p := make([]byte, PageSize)
	le.PutUint32(p[OffMagic:], Magic)
	le.PutUint32(p[OffVersion:], Version)
	le.PutUint32(p[OffPoolPages:], l.PoolPages)
	le.PutUint32(p[OffDeviceCount:], uint32(len(l.Devices)))
	le.PutUint32(p[OffDoorbellPort:], l.DoorbellPort)
	copy(p[OffSeed:], seed[:])
	for i, d := range l.Devices {
		e := p[EntryOff(i):EntryOff(i+1)]
		le.PutUint32(e[OffDeviceID:], d.ID)
		le.PutUint32(e[OffPort:], d.Port)
		le.PutUint64(e[OffDeviceFeatures:], d.Features)
		le.PutUint32(e[OffNumQueues:], uint32(len(d.Queues)))
		le.PutUint32(e[OffConfigLen:], uint32(len(d.Config)))
		le.PutUint32(e[OffSection:], d.SectionOff)
		le.PutUint32(e[OffOutPages:], d.OutPages)
		le.PutUint32(e[OffInPages:], d.InPages)
		for q, num := range d.Queues {
			le.PutUint32(e[OffQueues+QueueSize*q+OffQueueNumMax:], num)
		}
		copy(e[OffConfig:], d.Config)
	}
	return p, nil
}

// Validate checks everything about l but the ports. Errors match ErrLayout.
func (l Layout) Validate() error {
	if l.PoolPages == 0 || l.PoolPages > MaxPoolPages {
		return fmt.Errorf("noxs: %w: pool of %d pages", ErrLayout, l.PoolPages)
	}
	if len(l.Devices) > MaxDevices {
		return fmt.Errorf("noxs: %w: %d devices, at most %d", ErrLayout, len(l.Devices), MaxDevices)
	}
	for i, d := range l.Devices {
		if err := d.validate(l.PoolPages); err != nil {
			return fmt.Errorf("noxs: %w: device %d: %v", ErrLayout, i, err)
		}
		for j, o := range l.Devices[:i] {
			if d.SectionOff < o.SectionOff+o.OutPages+o.InPages &&
				o.SectionOff < d.SectionOff+d.OutPages+d.InPages {
				return fmt.Errorf("noxs: %w: sections of devices %d and %d overlap", ErrLayout, j, i)
			}
		}
	}
	return nil
}

func (d Device) validate(poolPages uint32) error {
	if d.ID == 0 {
		return errors.New("no device id")
	}
	if d.Features&FeaturesOffered != FeaturesOffered {
		return fmt.Errorf("features %#x lack some of %#x", d.Features, uint64(FeaturesOffered))
	}
	if len(d.Config) > MaxConfig {
		return fmt.Errorf("config space of %d bytes, at most %d", len(d.Config), MaxConfig)
	}
	if len(d.Queues) == 0 || len(d.Queues) > MaxQueues {
		return fmt.Errorf("%d queues, want 1 to %d", len(d.Queues), MaxQueues)
	}
	ring := uint64(0)
	for q, num := range d.Queues {
		if num&(num-1) != 0 || num > MaxQueueNum {
			return fmt.Errorf("queue %d: size %d is no power of two up to %d", q, num, MaxQueueNum)
		}
		ring += 16*uint64(num) + 6 + 2*uint64(num) + 6 + 8*uint64(num)
	}
	if ring > uint64(d.OutPages)*PageSize {
		return fmt.Errorf("rings of %d bytes in %d out pages", ring, d.OutPages)
	}
	if end := uint64(d.SectionOff) + uint64(d.OutPages) + uint64(d.InPages); end > uint64(poolPages) {
		return fmt.Errorf("section ends at page %d of a pool of %d", end, poolPages)
	}
	return nil
}

func (l Layout) validatePorts() error {
	seen := map[uint32]string{}
	if l.DoorbellPort != 0 {
		seen[l.DoorbellPort] = "the doorbell"
	}
	for i, d := range l.Devices {
		if d.Port == 0 {
			return fmt.Errorf("noxs: %w: device %d has no port", ErrLayout, i)
		}
		if who, ok := seen[d.Port]; ok {
			return fmt.Errorf("noxs: %w: device %d and %s share port %d", ErrLayout, i, who, d.Port)
		}
		seen[d.Port] = fmt.Sprintf("device %d", i)
	}
	return nil
}
