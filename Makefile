# `make` alone lists what can be made. It needs Go, gcc, make and git; tests use g++ too where there is one, and test-arm64
# needs qemu, test-systemd a machine with systemd-nspawn.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X github.com/ipcd/ipcd/internal/version.Version=$(VERSION)

# The version is stamped above. Go's own stamp asks git, which refuses a checkout owned by another
# user, and would fail the build.
export GOFLAGS := $(strip -buildvcs=false $(GOFLAGS))

FUZZTIME ?= 10s
BENCH ?= .
SEEDS ?= 100000
LINEAR_ROUNDS ?= 500

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: build
build: ## build bin/ipcd and bin/ipcctl
	@CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/ipcd ./cmd/ipcctl

.PHONY: demo
demo: build ## stream this host's own log through ipcd and look inside
	@demo/run

.PHONY: test
test: ## lint, cross-build and run all tests under the race detector
	@$(MAKE) --no-print-directory --keep-going lint cross unit

.PHONY: unit
unit: ## run all tests under the race detector
	go test -race -count=1 ./...
	go -C tools test ./...

.PHONY: test-long
test-long: ## the simulations and the crash tests at length (an hour or more)
	go test -count=1 -timeout 12h ./broker -run 'TestCrashes' -sim.seeds=$(SEEDS)
	go test -count=1 -timeout 12h ./internal/linear -linear.rounds=2000
	IPCD_CRASH_CYCLES=1000 go test -count=1 -timeout 12h ./internal/crash
	go test -count=1 -timeout 12h ./internal/shm -shm.torn=10m -shm.parks=10000000
	IPCD_KILL_EVERYWHERE=1 go test -count=1 -timeout 12h -run Instruction ./client/c

.PHONY: test-linear
test-linear: ## hold histories of the real daemon against the sequential model for LINEAR_ROUNDS (500)
	go test -count=1 -v -timeout 12h ./internal/linear -linear.rounds=$(LINEAR_ROUNDS)

.PHONY: test-arm64
test-arm64: ## run the ring's tests as arm64, under qemu-user (Debian: qemu-user-static)
	CGO_ENABLED=0 GOARCH=arm64 go test -count=1 -exec qemu-aarch64-static ./internal/shm -skip 'Requeued' -shm.torn=10s -shm.parks=20000

.PHONY: deb
deb: ## build the Debian packages for amd64 and arm64 into dist/
	@deploy/debian/build amd64 arm64

.PHONY: test-systemd
test-systemd: ## test the package under a booted systemd (root, debootstrap, systemd-container; some minutes)
	IPCD_SYSTEMD_TEST=1 CGO_ENABLED=0 go test -count=1 -v -timeout 40m ./internal/systemdtest

.PHONY: test-mutants
test-mutants: ## break ipcd on purpose, and expect the tests to notice each time
	go -C tools run ./mutants

.PHONY: lint
lint: ## go vet and the pinned staticcheck
	go vet ./...
	go -C tools vet ./...
	go tool -modfile=tools/go.mod staticcheck ./...

.PHONY: cross
cross: ## check that the client and ipcctl build for macOS, and everything for arm64
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go build -o /dev/null ./client/... ./cmd/ipcctl
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go build -o /dev/null ./...

.PHONY: proto
proto: ## generate the Go code of proto/ again
	@set -e; new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; \
	go -C tools run ./protogen ../proto "$$new"; \
	rm -f proto/ipcd/v1/*.pb.go; \
	cp -R "$$new"/. proto/

.PHONY: bench
bench: ## run the benchmarks (BENCH=regexp)
	go test -run '^$$' -bench '$(BENCH)' -benchmem ./...

.PHONY: bench-scale
bench-scale: ## measure what docs/scale.md says, on a quiet machine (root, 4 GiB, a quarter of an hour)
	go test -run '^$$' -bench 'Overhead' -benchtime 1x ./broker/queue
	go test -run '^$$' -bench 'Scale(Backlog|InFlight|Settle)' -benchtime 40x -timeout 30m ./broker/queue
	go test -run '^$$' -bench 'ScaleTypes' ./broker/queue
	go test -run '^$$' -bench . -benchtime 1x -timeout 30m ./internal/bench/scale
	go test -run '^$$' -bench . -benchtime 7x -timeout 30m ./internal/bench/flood

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (10s)
	@set -e; grep -rho --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's/^func //' | sort -u | while read -r target; do \
		for file in $$(grep -rl --include='*_test.go' "^func $$target(" .); do \
			echo "go test -fuzz $$target $$(dirname $$file)"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$(dirname $$file); \
		done; \
	done

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist
