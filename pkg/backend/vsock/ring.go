// SPDX-License-Identifier: Apache-2.0

package vsock

// ring is a byte queue that grows by doubling up to what its user puts in.
type ring struct {
	buf  []byte // a power of two long, or nil
	r, n int    // next byte to read, bytes held
}

const ringMin = 4096

// write appends p.
func (q *ring) write(p []byte) {
	if q.n+len(p) > len(q.buf) {
		q.grow(q.n + len(p))
	}
	at := (q.r + q.n) & (len(q.buf) - 1)
	copy(q.buf, p[copy(q.buf[at:], p):])
	q.n += len(p)
}

// grow makes a new buffer. Slices that front returned stay valid.
func (q *ring) grow(n int) {
	size := max(len(q.buf), ringMin)
	for size < n {
		size *= 2
	}
	buf := make([]byte, size)
	f := q.front()
	copy(buf[copy(buf, f):], q.buf[:q.n-len(f)])
	q.buf, q.r = buf, 0
}

// front returns the first run of bytes, without taking them.
func (q *ring) front() []byte { return q.buf[q.r:min(q.r+q.n, len(q.buf))] }

// drop takes n bytes off the front.
func (q *ring) drop(n int) {
	q.n -= n
	if q.r += n; q.r >= len(q.buf) {
		q.r -= len(q.buf)
	}
	if q.n == 0 {
		q.r = 0
	}
}
