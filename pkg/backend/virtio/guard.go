// SPDX-License-Identifier: Apache-2.0

package virtio

import (
	"fmt"
	"runtime/debug"
)

// Guard runs f, which touches guest memory, on the calling goroutine. A fault
// on a mapping, which means that a page was taken away under the process,
// becomes an error instead of the end of the process; every other panic goes on.
func Guard(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		fault, ok := r.(interface {
			error
			Addr() uintptr
		})
		if !ok {
			panic(r)
		}
		err = fmt.Errorf("guest memory at %#x is gone: %w", fault.Addr(), fault)
	}()
	return f()
}
