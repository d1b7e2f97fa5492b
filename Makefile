# Two commands do everything on a fresh machine with Go: make demo, make test.

GO       ?= go
BIN      := bin/vramsweep
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)
TOOLS    := $(GO) tool -modfile=.ci/tools/go.mod
FUZZTIME ?= 10m

.PHONY: demo test test-short test-vllm lint fmt vulncheck build release bench chaos accuracy fuzz golden clean

build: ## the binary, bin/vramsweep
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/vramsweep

demo: build ## examples/demo.hcl on the simulator; leaves demo-results/
	rm -rf demo-results
	$(BIN) run examples/demo.hcl --output-dir demo-results || [ $$? -eq 3 ]
	$(BIN) verify demo-results

test: ## all tests, with the race detector
	$(GO) vet ./...
	$(GO) test -race -timeout 20m ./...

test-vllm: build ## a sweep with real vLLM on this machine: make test-vllm VLLM=DIR/bin/vllm
	@test -n "$(VLLM)" || { echo "which vLLM? make test-vllm VLLM=DIR/bin/vllm"; exit 2; }
	VRAMSWEEP_TEST_VLLM=$(abspath $(VLLM)) $(GO) test ./cmd/vramsweep -run TestRealVLLM -count=1 -v -timeout 60m

lint: ## layers, style, correctness
	$(TOOLS) golangci-lint run ./...

fmt:
	gofmt -w $$(git ls-files '*.go')

vulncheck: ## needs the vulnerability database
	$(TOOLS) govulncheck ./...

release: ## static-as-possible binaries for linux/amd64 and linux/arm64
	for arch in amd64 arm64; do \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/vramsweep-linux-$$arch ./cmd/vramsweep || exit 1; done

bench: ## speed and memory, never judged in tests
	$(GO) test -run '^$$' -bench . -benchmem ./...

chaos: build ## kill -9 at random moments, hundreds of times
	$(GO) test ./cmd/vramsweep -run TestChaos -count=1 -v -timeout 60m -chaos

accuracy: ## predicted against measured, on the recordings beside the checkout
	$(GO) test ./sweep/models -run TestAccuracy -count=1 -v

fuzz: ## every fuzz test for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$f"; $(GO) test $$pkg -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) || exit 1; done; done

golden: ## rewrite golden files; read the diff
	$(GO) test ./... -update

clean:
	rm -rf bin demo-results
