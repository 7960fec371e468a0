# SPDX-License-Identifier: Apache-2.0
# Everything is built below build/ and bin/; downloads and what takes long are
# kept in the user's cache folder, by content.
SHELL   := /bin/bash
# What is piped into TALLY has failed when it fails or is killed, whatever was counted.
.SHELLFLAGS := -o pipefail -c
PAYLOAD := build/payload
GO      ?= go
export CGO_ENABLED := 0
# -trimpath everywhere: without it Go's cache is of no use to another clone.
GOBUILD := $(GO) build -trimpath -ldflags '-s -w'
TALLY   := $(GO) -C integration run -trimpath ./cmd/tally

# The runtime that client-tests tests.
RUNTIME ?= io.containerd.xcontainer.v2

.PHONY: help deps demo test unit e2e smoke bench bench-syscalls bench-servers suites fuzz hostile soak soak-short torture torture-debug torture-short chaos chaos-short client-tests client-tests-short daemons daemons-short fuzz-short hostile-short lab shim libos libos-debug xkernel payload vet clean

help:    ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: deps lab payload ## build everything and run a container in the lab
	@integration/demo.sh

# One after the other, each with its own last line: two labs at once take each
# ten times as long.
test: deps unit e2e client-tests-short daemons-short soak-short chaos-short hostile-short torture-short fuzz-short ## all tests: unit, then everything on real Xen in the lab

e2e: deps lab payload ## the toolstack and containers on real Xen in the lab
	@integration/step.sh 'lab and end-to-end tests (real Xen 4.17 in QEMU)' \
		bash -o pipefail -c '$(GO) -C integration test -trimpath -json -p 1 -count=1 -timeout 60m ./conformance/... ./e2e/... | $(TALLY)'

unit: vet ## the tests that need no lab: seconds to a few minutes
	@integration/step.sh 'unit tests' env XCONTAINER_REQUIRE_HEADERS=1 $(GO) test -trimpath -count=1 -timeout 10m ./...
	@integration/step.sh 'unit tests of the lab' $(GO) -C integration test -trimpath -count=1 -timeout 10m ./internal/... ./lab/... ./kernelbuild/... ./xenbuild/... ./clienttests/... ./daemons/... ./soak/... ./chaos/... ./suites/... ./cmd/...

vet:     ## gofmt and go vet over both modules
	@test -z "$$(gofmt -l cmd pkg integration)" || { gofmt -l cmd pkg integration; echo 'run gofmt -w on these files'; exit 1; }
	@integration/step.sh 'go vet' $(GO) vet -trimpath ./...
	@integration/step.sh 'go vet of the lab' $(GO) -C integration vet -trimpath ./...

# Of the containers a few: what else they do has nothing to do with the version of Xen.
SMOKE := TestSmoke(Kernel|ExitCodes|Exec)$$
smoke: deps lab payload ## a short run on Xen 4.20
	@integration/step.sh 'smoke run on Xen 4.20' env LAB_XEN=4.20 \
		$(GO) -C integration test -trimpath -count=1 -timeout 30m -v ./conformance/... && \
	integration/step.sh 'containers on Xen 4.20' env LAB_XEN=4.20 \
		$(GO) -C integration test -trimpath -count=1 -timeout 30m -v -run '$(SMOKE)' ./e2e/...

client-tests: deps payload ## containerd's own client tests on real Xen in the lab; RUNTIME=io.containerd.runc.v2 for runc
	@$(GO) -C integration run -trimpath ./cmd/clienttests -runtime $(RUNTIME)

client-tests-short: deps payload ## a choice of 20 of them, in minutes
	@$(GO) -C integration run -trimpath ./cmd/clienttests -runtime $(RUNTIME) -short

daemons: deps payload ## one container's life with each supported containerd, 1.6 to 2.4
	@$(GO) -C integration run -trimpath ./cmd/daemons

# All other tests run with 2.3, which shakes hands as the newest does.
daemons-short: deps payload ## the oldest of them
	@$(GO) -C integration run -trimpath ./cmd/daemons -only 1.6

FUZZTIME ?= 30s
fuzz: deps ## every fuzz target for FUZZTIME, 30 s if not set
	@$(GO) -C integration run -trimpath ./cmd/fuzz -time $(FUZZTIME) ..

fuzz-short: deps ## the same for seconds
	@$(GO) -C integration run -trimpath ./cmd/fuzz -time 3s ..

HOSTILE_SECONDS ?= 30
hostile: deps lab payload ## guests that mean harm, each for HOSTILE_SECONDS, 30 if not set
	@HOSTILE_SECONDS=$(HOSTILE_SECONDS) $(GO) -C integration test -trimpath -json -count=1 -timeout 100m ./hostile/ | $(TALLY)

# Without those that fill both CPUs for minutes under emulation, or wait for time-outs.
HOSTILE_QUICK := TestBackEnd|TestHostile/(device|rings|FUSE|vsock|resets|console|hello|random|frames)
hostile-short: deps lab payload ## most of them, for seconds
	@HOSTILE_SECONDS=4 $(GO) -C integration test -trimpath -json -count=1 -timeout 60m -run '$(HOSTILE_QUICK)' ./hostile/ | $(TALLY)

# Four at once, which costs them time and makes for other races.
TORTURE := XLIBOS_SECONDS=600 XLIBOS_MODES=full XLIBOS_BESIDE=1 $(GO) -C integration test -trimpath -json -count=1 -parallel 4 -timeout 12h -run TestTorture ./xlibos/ | $(TALLY)
torture: deps lab payload ## programs that try what X-LibOS may break, 10 minutes each, four at once: an hour and a half
	@$(TORTURE)

torture-debug: deps lab payload libos-debug ## the same on a kernel that checks itself
	@XLIBOS_KERNEL=debug $(TORTURE)

# The mode off is what the programs are checked against, when one of them changes.
TORTURE_MODES ?= full,entry
torture-short: deps lab payload ## each for seconds, with X-LibOS whole, some with its entry only; TORTURE_MODES=off for neither
	@XLIBOS_SECONDS=2 XLIBOS_MODES=$(TORTURE_MODES) $(GO) -C integration test -trimpath -json -count=1 -timeout 90m -run TestTorture ./xlibos/ | $(TALLY)

SOAK ?=
soak: deps payload ## 1,000 execs, then 300 containers, then 200 paused, updated and killed, and what grows: 40 minutes under emulation; SOAK='-execs=N -cycles=N -lives=N' for other numbers
	@$(GO) -C integration run -trimpath ./cmd/soak $(SOAK)

soak-short: deps payload ## the same in minutes
	@$(GO) -C integration run -trimpath ./cmd/soak -short

CHAOS ?=
chaos: deps payload ## 100 containers' lives with kills at random points; CHAOS=-seed=N repeats one run
	@$(GO) -C integration run -trimpath ./cmd/chaos $(CHAOS)

chaos-short: deps payload ## ten of them
	@$(GO) -C integration run -trimpath ./cmd/chaos -short $(CHAOS)

bench: deps lab payload ## times of create's steps and of ctr run against runc in the same dom0
	@$(GO) -C integration run -trimpath ./cmd/bench

BENCH_SYSCALLS ?=
bench-syscalls: deps lab payload ## what system calls cost with runc, in a stock PV guest, with X-LibOS, on an X-Kernel; BENCH_SYSCALLS=-only=NAMES for parts
	@$(GO) -C integration run -trimpath ./cmd/benchsyscalls $(BENCH_SYSCALLS)

BENCH_SERVERS ?=
bench-servers: deps lab payload ## requests per second of servers in the same, and the share of direct calls; BENCH_SERVERS=-rows=NAMES for parts
	@$(GO) -C integration run -trimpath ./cmd/benchsyscalls -servers $(BENCH_SERVERS)

SUITES ?=
suites: deps lab payload ## other people's tests with X-LibOS on and off, which must come to the same: hours; SUITES='-only=NAMES -short' for parts
	@$(GO) -C integration run -trimpath ./cmd/suites $(SUITES)

lab:     ## build bin/lab, the command that runs a Xen host in QEMU
	@mkdir -p bin
	@integration/step.sh 'build bin/lab' $(GO) -C integration build -trimpath -o ../bin/lab ./cmd/lab

payload: shim libos ## what dom0 needs: these two

shim:    ## build the shim and xcontainerctl into build/payload/bin
	@mkdir -p $(PAYLOAD)/bin
	@integration/step.sh 'build the shim and xcontainerctl' \
		$(GOBUILD) -o $(PAYLOAD)/bin/ ./cmd/containerd-shim-xcontainer-v2 ./cmd/xcontainerctl

libos:   ## build the library OS (kernels and initramfs) into build/payload/share/xcontainer
	@integration/step.sh 'build the library OS' $(GO) -C integration run -trimpath ./cmd/libosbuild ../$(PAYLOAD)/share/xcontainer

libos-debug: ## build a guest kernel that checks itself, for tests, into build/payload/share/xcontainer
	@integration/step.sh 'build a kernel for tests' $(GO) -C integration run -trimpath ./cmd/libosbuild -debug ../$(PAYLOAD)/share/xcontainer

xkernel: deps ## build patched hypervisors, of Xen 4.17 and 4.20, into build/xkernel
	@integration/step.sh 'build the X-Kernels' $(GO) -C integration run -trimpath ./cmd/xkernelbuild ../build/xkernel

deps:    ## install the Debian packages that the build and the lab need
	@integration/deps.sh

clean:   ## remove what was built here (the user's cache stays)
	rm -rf bin build
