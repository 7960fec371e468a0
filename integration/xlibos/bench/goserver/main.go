// SPDX-License-Identifier: Apache-2.0

// Goserver answers every HTTP request with a short text, for benchmarks.
//
//	goserver ADDRESS
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: goserver ADDRESS")
		os.Exit(2)
	}
	log.Fatal(http.ListenAndServe(os.Args[1], http.HandlerFunc(answer)))
}

// answer sends what the other servers have as a file.
func answer(w http.ResponseWriter, _ *http.Request) {
	// A client that is gone is no concern of a server that only answers.
	_, _ = io.WriteString(w, "Hello from a container.\n")
}
