// SPDX-License-Identifier: Apache-2.0

package noxs

// Sizes and limits, docs/noxs.md 1 and 2.
const (
	Magic   = 0x53584f4e // "NOXS" in memory
	Version = 1

	PageSize     = 4096
	MaxPoolPages = 65536
	MaxDevices   = 15
	MaxQueues    = 4
	MaxConfig    = 64
	MaxQueueNum  = 32768 // limit of the virtio specification for split rings
	SeedSize     = 64
)

// Offsets in the header, docs/noxs.md 2.1.
const (
	OffMagic        = 0
	OffVersion      = 4
	OffPoolPages    = 8
	OffDeviceCount  = 12
	OffDoorbellPort = 16
	OffGuestState   = 20
	OffFlags        = 24
	OffSeed         = 64
	HeaderSize      = 128
)

// Offsets in an entry, docs/noxs.md 2.2.
const (
	EntrySize = 256

	OffDeviceID         = 0
	OffPort             = 4
	OffDeviceFeatures   = 8
	OffDriverFeatures   = 16
	OffStatus           = 24
	OffHostStatus       = 28
	OffNumQueues        = 32
	OffConfigLen        = 36
	OffConfigGeneration = 40
	OffReqSeq           = 44
	OffAckSeq           = 48
	OffSection          = 52
	OffOutPages         = 56
	OffInPages          = 60
	OffQueues           = 64
	OffConfig           = 192
)

// Offsets in a queue block, docs/noxs.md 2.3.
const (
	QueueSize = 32

	OffQueueNumMax = 0
	OffQueueNum    = 4
	OffQueueReady  = 8
	OffQueueDesc   = 16
	OffQueueAvail  = 20
	OffQueueUsed   = 24
)

// Feature bits that every device offers, docs/noxs.md 3.
const (
	FeatureEventIdx       = 1 << 29
	FeatureVersion1       = 1 << 32
	FeatureAccessPlatform = 1 << 33

	// FeaturesOffered is what every device offers at least.
	FeaturesOffered = FeatureEventIdx | FeatureVersion1 | FeatureAccessPlatform
	// FeaturesRequired is what every driver must choose.
	FeaturesRequired = FeatureVersion1 | FeatureAccessPlatform
)

// Bits of an entry's status field (virtio 1.2, 2.1).
const (
	StatusAcknowledge = 1
	StatusDriver      = 2
	StatusDriverOK    = 4
	StatusFeaturesOK  = 8
	StatusFailed      = 128
)

// HostNeedsReset is bit 0 of host_status.
const HostNeedsReset = 1

// Values of guest_state, docs/noxs.md 5.
const (
	GuestBooting  = 0
	GuestUp       = 1
	GuestPanic    = 2
	GuestReboot   = 3
	GuestPowerOff = 4
)

// Virtio device ids in use.
const (
	DeviceNet   = 1
	DeviceBlock = 2
	DeviceVsock = 19
	DeviceFS    = 26
)

// Facts about the devices of version 1, docs/noxs.md 7.
const (
	GuestCID = 3
	HostCID  = 2
	FSTag    = "xcontainer"
)

// EntryOff returns the offset of device i's entry in the page.
func EntryOff(i int) int { return HeaderSize + EntrySize*i }

// QueueOff returns the offset of the block of queue q of device i in the page.
func QueueOff(i, q int) int { return EntryOff(i) + OffQueues + QueueSize*q }
