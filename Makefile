# `make` lists the targets. Tools and caches live in .cache/, results in bin/; both may be deleted at any time.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

GO       ?= go
RELEASE  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.release=$(RELEASE)
TOOLS    := $(CURDIR)/.cache/bin
FUZZTIME ?= 10s
IMAGE    ?= dnsfleet

# The race detector's checks of pointers cost the SQLite that was translated from C three quarters of its time, and it is
# not ours to mend.
RACE     := -race -gcflags=modernc.org/...=-d=checkptr=0

# A Node that scripts/deps.sh had to fetch, and the linters, come first.
export PATH := $(TOOLS):$(PATH)
# The linter keeps findings with the whole path of the tree it saw, so that a second clone would be judged by the rules
# for other people's paths: a cache for each tree.
export GOLANGCI_LINT_CACHE := $(CURDIR)/.cache/lint/$(subst /,-,$(CURDIR))

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##### build and run

.PHONY: build
build: ## build bin/dnsfleet, a static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/dnsfleet ./cmd/dnsfleet

.PHONY: demo
demo: ## run a whole fleet in one process (ARGS="--replicas 5 --kill-one-after 30s")
	$(GO) run ./cmd/dnsfleet demo $(ARGS)

.PHONY: image
image: ## build the container image (IMAGE=dnsfleet)
	docker build --build-arg RELEASE=$(RELEASE) -t $(IMAGE):$(RELEASE) -t $(IMAGE):latest .

##### test

.PHONY: test
test: ## install what is missing, build, lint and run every test
	./scripts/deps.sh
	$(MAKE) --no-print-directory build
	$(MAKE) --no-print-directory web-check
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory test-go
	$(MAKE) --no-print-directory test-web

.PHONY: deps
deps: ## install what the tests need and this machine lacks
	./scripts/deps.sh

.PHONY: test-go
test-go: ## go vet, and every Go test with the race detector, end to end included
	$(GO) vet ./...
	$(GO) test $(RACE) -shuffle=on -timeout 20m ./...

.PHONY: lint
lint: $(TOOLS)/golangci-lint ## run the linters
	$(TOOLS)/golangci-lint run ./...
	cd internal/querylog/clickhouse/chtest/engine && GOWORK=off CGO_ENABLED=0 $(GO) vet ./...

.PHONY: fmt
fmt: $(TOOLS)/golangci-lint ## format the Go code
	$(TOOLS)/golangci-lint fmt ./...

.PHONY: e2e
e2e: ## only the end-to-end tests: real processes, a real Redis
	$(GO) test $(RACE) -shuffle=on -count=1 -v ./e2e/...

.PHONY: e2e-long
e2e-long: ## the same with every primary down for five minutes
	$(GO) test $(RACE) -shuffle=on -count=1 -v -timeout 40m ./e2e -outage 5m

.PHONY: fuzz
fuzz: ## run every fuzz target for a while (FUZZTIME=10s)
	./scripts/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: ## measure pushes, the fleet view, the store and the query log
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 90m ./bench/...

.PHONY: bench-dns
bench-dns: ## measure DNS answers beside dnsdist, unbound, dnsmasq and a bare echo (ARGS="-only cached -rounds 5")
	./scripts/deps.sh dnsperf nsd dnsdist unbound dnsmasq
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/dnsfleet ./cmd/dnsfleet
	CGO_ENABLED=0 $(GO) build -o bin/bench-dns ./bench/dns
	bin/bench-dns -dnsfleet bin/dnsfleet $(ARGS)

.PHONY: bench-querylog
bench-querylog: ## measure the query log: what it costs a query, and both sinks beside their bare selves
	$(GO) test -run '^$$' -bench QueryLog -benchtime 1x -timeout 60m ./bench/...

.PHONY: test-querylog
test-querylog: ## a million events through both sinks, against figures computed in Go; takes half an hour
	$(GO) test -count=1 -timeout 60m -v -run 'TestQueryLog|TestClickHouseIsAQueryLog' ./internal/querylog/sqlite ./internal/querylog/clickhouse -querylog.events 1000000

##### dashboard

.PHONY: web
web: web/node_modules ## build the dashboard into web/dist
	cd web && npm run --silent build

.PHONY: web-check
web-check: web/node_modules ## check and test the dashboard's source, and that web/dist is built from it
	cd web && npm run --silent check && npm test --silent
	./scripts/webdist.sh

.PHONY: test-web
test-web: build web/node_modules ## look at the dashboard with a real browser
	cd web && DNSFLEET_BIN=$(CURDIR)/bin/dnsfleet CHROMIUM=$$(../scripts/chromium.sh) npm run --silent e2e

web/node_modules: web/package-lock.json
	cd web && npm ci --no-fund --no-audit
	@touch $@

##### housekeeping

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .cache web/node_modules

# The linters have a module of their own, so that go.mod stays the program's.
$(TOOLS)/golangci-lint: tools/go.mod tools/go.sum
	@echo "building the linters; the first time takes a few minutes"
	cd tools && GOBIN=$(TOOLS) $(GO) install tool
	@touch $@
