// SPDX-License-Identifier: Apache-2.0

package xen_test

import (
	"context"
	"testing"
)

func TestCapacity(t *testing.T) {
	h, config := newHost(t)
	before, err := h.Capacity()
	if err != nil || before.Scheduler != "credit2" || before.Free != before.Total || before.Free == 0 {
		t.Fatalf("%+v, %v", before, err)
	}
	d, err := h.Create(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	after, err := h.Capacity()
	if err != nil || after.Free > before.Free-config.MemoryKiB<<10 {
		t.Errorf("with a domain of %d KiB: %+v, %v", config.MemoryKiB, after, err)
	}
	if err := d.Destroy(context.Background()); err != nil {
		t.Fatal(err)
	}
	if after, err = h.Capacity(); err != nil || after != before {
		t.Errorf("without it: %+v, %v", after, err)
	}
}
