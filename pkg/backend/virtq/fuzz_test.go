// SPDX-License-Identifier: Apache-2.0

package virtq_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/xcontainer/xcontainer/pkg/backend/virtq"
	"github.com/xcontainer/xcontainer/pkg/backend/virtq/virtqtest"
)

// FuzzPop lays arbitrary bytes over descriptor table and rings. Whatever they
// say, chains stay within the section and each head is out once.
func FuzzPop(f *testing.F) {
	const num = 4
	ring := func(idx uint16, descs ...uint64) []byte {
		b := make([]byte, 16*num+6+2*num)
		for i, d := range descs {
			binary.LittleEndian.PutUint64(b[8*i:], d)
		}
		binary.LittleEndian.PutUint16(b[16*num+2:], idx)
		return b
	}
	f.Add(ring(1, outStart+4096, 1))
	f.Add(ring(1, outStart+4096, 16|1<<32|1<<48, inStart, 32|2<<32))
	f.Add(ring(1, outStart+4096, 16|1<<32))              // loop
	f.Add(ring(1, inStart, 16|3<<32|1<<48, outStart, 1)) // order
	f.Add(ring(1, ^uint64(0), 0xffffffff))
	f.Add(ring(4, inEnd-16, 16|2<<32))
	f.Add(ring(0x8000))
	pool := virtqtest.NewPool(f, pages)
	f.Fuzz(func(t *testing.T, b []byte) {
		clear(pool)
		cfg := virtqtest.NewSection(pool, secPage, outPages, inPages).NewDriver(num, true).Config()
		copy(pool[cfg.Desc:cfg.Used], b)
		q, err := virtq.New(pool, cfg)
		if err != nil {
			t.Fatal(err)
		}
		var out []*virtq.Chain
		for {
			c, err := q.Pop()
			if err != nil && !errors.Is(err, virtq.ErrGuest) {
				t.Fatal(err)
			}
			if c == nil {
				break
			}
			if len(c.Readable)+len(c.Writable) > num || len(c.Readable)+len(c.Writable) == 0 {
				t.Fatalf("%d buffers", len(c.Readable)+len(c.Writable))
			}
			for _, r := range c.Readable {
				virtqtest.MustLie(t, pool, r, outStart, inStart)
			}
			for _, w := range c.Writable {
				virtqtest.MustLie(t, pool, w, inStart, inEnd)
			}
			if out = append(out, c); len(out) > num {
				t.Fatal("more chains than descriptors")
			}
		}
		for _, c := range out {
			q.Push(c, ^uint32(0))
		}
		q.NeedSignal()
		q.Arm()
	})
}
