# Targets for people: build, install, test, check, bench, demo. `make help` tells what they do.

PREFIX  ?= /usr/local
BIN     := bin
DIST    := dist
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

PROGRAMS := banger bangerd banger-agent
GOBUILD   = CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

.PHONY: help
help: ## say what the targets do
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: deps
deps: ## install the host packages that banger needs (Debian; with sudo when not root)
	@scripts/deps

.PHONY: test-deps
test-deps:
	@scripts/deps test

.PHONY: build
build: ## build bin/banger, bin/bangerd and bin/banger-agent, all static
	$(GOBUILD) -o $(BIN)/ $(addprefix ./cmd/,$(PROGRAMS))

.PHONY: install
install: build ## install programs, man pages and completions below PREFIX (/usr/local); DESTDIR is heeded
	rm -rf $(DIST)/share; umask 022; $(BIN)/banger docs share $(DIST)/share
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share'
	install -m 0755 $(addprefix $(BIN)/,$(PROGRAMS)) '$(DESTDIR)$(PREFIX)/bin'
	umask 022; cp -R $(DIST)/share/. '$(DESTDIR)$(PREFIX)/share'

# The installed program says what was installed: this tree may be of another version.
.PHONY: uninstall
uninstall: ## remove what install put there
	@test -x '$(DESTDIR)$(PREFIX)/bin/banger' || { echo 'banger is not installed below $(DESTDIR)$(PREFIX)'; exit 1; }
	rm -rf $(DIST)/share; '$(DESTDIR)$(PREFIX)/bin/banger' docs share $(DIST)/share
	(cd $(DIST)/share && find . -type f -print0) | (cd '$(DESTDIR)$(PREFIX)/share' && xargs -0 rm -f)
	rm -f $(foreach p,$(PROGRAMS),'$(DESTDIR)$(PREFIX)/bin/$(p)')

.PHONY: check
check: ## gofmt, go vet, staticcheck, a build for arm64, and the rules of test/arch
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt -w these:" $$unformatted; exit 1; }
	go vet ./...
	go tool staticcheck ./...
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go build -o /dev/null ./cmd/...
	go test ./test/arch

.PHONY: docs
docs: ## write docs/RPC.md and docs/openrpc.json from the code
	go run ./internal/rpcserver/rpcdoc .

# The tests of packages run with the race detector; those of test/e2e and test/lab run the built programs and real guests.
.PHONY: test
test: test-deps build ## run every test, and end with counts and the reasons of skips
	@{ status=0; \
	   go test -json -race -timeout 30m $$(go list ./... | grep -vE '/test/(e2e|lab)') || status=1; \
	   go test -json -p 1 -timeout 90m ./test/e2e/... ./test/lab || status=1; exit $$status; } | go run ./test/report

.PHONY: test-short
test-short: ## run the tests that boot no guest
	@go test -json -short -race ./... | go run ./test/report

.PHONY: bench
bench: deps build ## measure the built programs beside their floors, and print a table; docs/BENCHMARKS.md has one
	go test -run '^$$' -bench . -benchtime 1x -timeout 60m ./test/bench
	go test -run '^$$' -bench 'TapTake|Filter100|DNS' ./internal/hostnet ./internal/hostnet/dnsserver

.PHONY: demo
demo: deps build ## run the main job on this clone
	@scripts/demo

.PHONY: clean
clean: ## remove what build made
	rm -rf $(BIN) $(DIST)
