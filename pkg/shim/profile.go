// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"expvar"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// profileTimeout bounds what a visitor's request may take to arrive.
const profileTimeout = 10 * time.Second

// serveProfile offers Go's profiles (/debug/pprof/) and variables (/debug/vars)
// on a socket at path, for root only, until closed. One that a dead shim left is
// replaced: the task service's socket says that there is no other shim.
//
//	curl --unix-socket PATH http://shim/debug/pprof/goroutine?debug=1
func serveProfile(path string) (close func(), err error) {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, fmt.Errorf("profile socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("profile socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("profile socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.Handle("/debug/vars", expvar.Handler())
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: profileTimeout}
	go srv.Serve(l) // its error is that of close
	return func() { srv.Close() }, nil
}

// Counts beside those of expvar itself, for whoever looks for leaks.
func init() {
	expvar.Publish("goroutines", expvar.Func(func() any { return runtime.NumGoroutine() }))
	expvar.Publish("descriptors", expvar.Func(func() any {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return err.Error()
		}
		return len(d) - 1 // less the folder itself
	}))
	expvar.Publish("maxrss_kib", expvar.Func(func() any {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			return err.Error()
		}
		return u.Maxrss
	}))
}
