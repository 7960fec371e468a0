// SPDX-License-Identifier: Apache-2.0

// labregistry serves the images of an OCI image layout on port 443 of the
// loopback interface. Before it accepts, it writes its certificate, and adds the
// names of the images' registries to /etc/hosts; then it prints "ready".
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/xcontainer/xcontainer/integration/internal/labregistry"
)

func main() {
	images := flag.String("images", "", "directory of the OCI image `layout`")
	cert := flag.String("cert", "", "`file` to write the certificate to")
	hosts := flag.String("hosts", "/etc/hosts", "`file` that leads the registries' names here")
	flag.Parse()
	if err := run(*images, *cert, *hosts); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run serves until the process is ended.
func run(images, cert, hosts string) error {
	r, err := labregistry.Load(images)
	if err != nil {
		return err
	}
	c, text, err := labregistry.Certificate(r.Hosts(), time.Now())
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:443")
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	if err := os.WriteFile(cert, text, 0o644); err != nil {
		return fmt.Errorf("registry: write the certificate: %w", err)
	}
	if err := addHosts(hosts, r.Hosts()); err != nil {
		return err
	}
	fmt.Println("ready")
	return http.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{c}, NextProtos: []string{"http/1.1"}}), r)
}

// addHosts adds a line for the names unless it is there.
func addHosts(file string, names []string) error {
	line := "127.0.0.1 " + strings.Join(names, " ") + "\n"
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	if strings.Contains(string(b), line) {
		return nil
	}
	if err := os.WriteFile(file, append(b, line...), 0o644); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	return nil
}
