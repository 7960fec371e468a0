// SPDX-License-Identifier: Apache-2.0

package noxs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// ports fills in what Standard leaves open.
func ports(l Layout) Layout {
	l.DoorbellPort = 10
	for i := range l.Devices {
		l.Devices[i].Port = uint32(11 + i)
	}
	return l
}

// TestNumbers holds the tables of docs/noxs.md 2 against the constants.
func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want int
	}{
		{"magic", Magic, 0x53584f4e}, {"version", OffVersion, 4}, {"pool_pages", OffPoolPages, 8},
		{"device_count", OffDeviceCount, 12}, {"doorbell_port", OffDoorbellPort, 16},
		{"guest_state", OffGuestState, 20}, {"flags", OffFlags, 24}, {"seed", OffSeed, 64},
		{"entry 0", EntryOff(0), 128}, {"entry 1", EntryOff(1), 384}, {"end", EntryOff(MaxDevices) - PageSize, -128},
		{"device_id", OffDeviceID, 0}, {"port", OffPort, 4}, {"device_features", OffDeviceFeatures, 8},
		{"driver_features", OffDriverFeatures, 16}, {"status", OffStatus, 24}, {"host_status", OffHostStatus, 28},
		{"num_queues", OffNumQueues, 32}, {"config_len", OffConfigLen, 36},
		{"config_generation", OffConfigGeneration, 40}, {"req_seq", OffReqSeq, 44}, {"ack_seq", OffAckSeq, 48},
		{"section_off", OffSection, 52}, {"out_pages", OffOutPages, 56}, {"in_pages", OffInPages, 60},
		{"queue 0 of 0", QueueOff(0, 0), 192}, {"queue 3 of 1", QueueOff(1, 3), 384 + 64 + 96},
		{"config", OffConfig, 192}, {"config end", OffConfig + MaxConfig, EntrySize},
		{"num_max", OffQueueNumMax, 0}, {"num", OffQueueNum, 4}, {"ready", OffQueueReady, 8},
		{"desc", OffQueueDesc, 16}, {"avail", OffQueueAvail, 20}, {"used", OffQueueUsed, 24},
		{"seed end", OffSeed + SeedSize, HeaderSize},
	} {
		if c.got != c.want {
			t.Errorf("%s = %d, want %d", c.name, c.got, c.want)
		}
	}
}

func TestEncodeStandard(t *testing.T) {
	seed := [SeedSize]byte{0: 1, 63: 2}
	p, err := Encode(ports(Standard()), seed)
	if err != nil {
		t.Fatal(err)
	}
	if len(p) != 4096 || string(p[:4]) != "NOXS" || !bytes.Equal(p[64:128], seed[:]) {
		t.Fatalf("header: % x", p[:128])
	}
	u32 := func(off int) uint32 { return binary.LittleEndian.Uint32(p[off:]) }
	for _, c := range []struct {
		name string
		off  int
		want uint32
	}{
		{"version", 4, 1}, {"pool_pages", 8, 580}, {"device_count", 12, 2}, {"doorbell", 16, 10}, {"state", 20, 0},
		{"vsock id", 128, 19}, {"vsock port", 132, 11}, {"features low", 136, 1 << 29}, {"features high", 140, 3},
		{"vsock queues", 160, 3}, {"config_len", 164, 8}, {"section", 180, 0}, {"out", 184, 128}, {"in", 188, 144},
		{"rx", 192, 128}, {"tx", 224, 128}, {"event", 256, 8}, {"none", 288, 0}, {"cid", 320, 3}, {"cid high", 324, 0},
		{"fs id", 384, 26}, {"fs port", 388, 12}, {"fs queues", 416, 2}, {"fs config_len", 420, 40},
		{"fs section", 436, 272}, {"fs out", 440, 164}, {"fs in", 444, 144}, {"hiprio", 448, 16}, {"request", 480, 128},
		{"num_request_queues", 576 + 36, 1},
	} {
		if got := u32(c.off); got != c.want {
			t.Errorf("%s at %d = %d, want %d", c.name, c.off, got, c.want)
		}
	}
	if got := string(bytes.TrimRight(p[576:576+36], "\x00")); got != "xcontainer" {
		t.Errorf("tag %q", got)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, f := range map[string]func(l *Layout){
		"no pool":            func(l *Layout) { l.PoolPages = 0 },
		"pool too large":     func(l *Layout) { l.PoolPages = MaxPoolPages + 1 },
		"section outside":    func(l *Layout) { l.Devices[1].SectionOff = 401 },
		"section wraps":      func(l *Layout) { l.Devices[1].SectionOff = 0xffffffff },
		"in pages wrap":      func(l *Layout) { l.Devices[1].InPages = 0xfffffff0 },
		"sections overlap":   func(l *Layout) { l.Devices[1].SectionOff = 399 },
		"same section":       func(l *Layout) { l.Devices[1].SectionOff = 0 },
		"no id":              func(l *Layout) { l.Devices[0].ID = 0 },
		"features missing":   func(l *Layout) { l.Devices[0].Features &^= FeatureAccessPlatform },
		"queue size":         func(l *Layout) { l.Devices[0].Queues[0] = 100 },
		"queue too large":    func(l *Layout) { l.Devices[0].Queues[0] = 65536 },
		"no queues":          func(l *Layout) { l.Devices[0].Queues = nil },
		"five queues":        func(l *Layout) { l.Devices[0].Queues = []uint32{8, 8, 8, 8, 8} },
		"config too long":    func(l *Layout) { l.Devices[0].Config = make([]byte, 65) },
		"rings do not fit":   func(l *Layout) { l.Devices[0].Queues[0] = 32768 },
		"no port":            func(l *Layout) { l.Devices[0].Port = 0 },
		"same port":          func(l *Layout) { l.Devices[1].Port = l.Devices[0].Port },
		"port is doorbell's": func(l *Layout) { l.Devices[1].Port = l.DoorbellPort },
		"sixteen devices": func(l *Layout) {
			l.Devices = append(l.Devices, make([]Device, 14)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := ports(Standard())
			f(&l)
			if _, err := Encode(l, [SeedSize]byte{}); !errors.Is(err, ErrLayout) {
				t.Fatalf("error %v, want ErrLayout", err)
			}
		})
	}
}

func TestPage(t *testing.T) {
	raw, err := Encode(ports(Standard()), [SeedSize]byte{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPage(raw)
	if err != nil {
		t.Fatal(err)
	}
	p.DriverSetFeatures(1, FeaturesRequired)
	want := QueueBlock{Num: 64, Ready: 1, Desc: 16, Avail: 18, Used: 20}
	p.DriverSetQueue(1, 1, want)
	if seq := p.DriverRequest(1, StatusDriverOK); seq != 1 || p.ReqSeq(1) != 1 || p.ReqSeq(0) != 0 {
		t.Errorf("request %d", seq)
	}
	if got := p.Queue(1, 1); got != want {
		t.Errorf("queue %+v, want %+v", got, want)
	}
	if p.DriverFeatures(1) != FeaturesRequired || p.Status(1) != StatusDriverOK {
		t.Errorf("features %#x status %#x", p.DriverFeatures(1), p.Status(1))
	}
	p.SetAckSeq(1, 1)
	p.SetHostStatus(1, HostNeedsReset)
	p.DriverSetGuestState(GuestPanic)
	if p.AckSeq(1) != 1 || p.HostStatus(1) != 1 || p.GuestState() != GuestPanic {
		t.Error("host fields do not read back")
	}
	if binary.LittleEndian.Uint32(raw[384+48:]) != 1 || binary.LittleEndian.Uint64(raw[384+16:]) != FeaturesRequired {
		t.Error("fields are not where docs/noxs.md puts them")
	}
	if _, err := NewPage(raw[:4095]); err == nil {
		t.Error("short page accepted")
	}
	if _, err := NewPage(append(raw, 0, 0, 0, 0)[4:]); err == nil {
		t.Error("unaligned page accepted")
	}
}
