// SPDX-License-Identifier: Apache-2.0

package iovec

// Len is the sum of the lengths. Buffers of a guest may overlap, so it can exceed
// the size of the memory that they lie in.
func Len(bufs [][]byte) (n uint64) {
	for _, b := range bufs {
		n += uint64(len(b))
	}
	return n
}

// Gather fills dst from the start of src and returns how much there was.
func Gather(dst []byte, src [][]byte) (n int) {
	for _, b := range src {
		if n += copy(dst[n:], b); n == len(dst) {
			break
		}
	}
	return n
}

// Scatter writes src to the start of dst and returns how much fitted.
func Scatter(dst [][]byte, src []byte) (n int) {
	for _, b := range dst {
		if n += copy(b, src[n:]); n == len(src) {
			break
		}
	}
	return n
}

// Skip cuts n bytes off the front, which there are. It changes the list that it
// is given.
func Skip(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if n > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}
