# SPDX-License-Identifier: Apache-2.0
.PHONY: help lab clean

help:    ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

lab:     ## build bin/lab, the command that runs a Xen host in QEMU
	cd integration && CGO_ENABLED=0 go build -o ../bin/lab ./cmd/lab

clean:   ## remove what was built here (the user's cache stays)
	rm -rf bin build
