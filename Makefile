# Two commands do everything on a fresh machine with Go: make demo, make test.

GO       ?= go
BIN      := bin/vramsweep
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)
TOOLS    := $(GO) tool -modfile=.ci/tools/go.mod
FUZZTIME ?= 10m
CORPUS   ?= ../shared/corpus
H100     := NVIDIA H100 80GB HBM3

.PHONY: laws demo test test-vllm lint deadcode fmt vulncheck build release bench chaos attack power trust accuracy overheads fuzz golden clean

build: ## the binary, bin/vramsweep
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/vramsweep

demo: build ## examples/demo.hcl on the simulator; leaves demo-results/
	rm -rf demo-results
	$(BIN) run examples/demo.hcl --output-dir demo-results || [ $$? -eq 3 ]
	$(BIN) verify demo-results

# Packages that start no goroutine and share nothing between any: the race
# detector finds nothing in them, and their corpora take it ten times as long.
PLAIN := $(addprefix ./,sweep runner/vllm/log sinks/analyze/compare sinks/analyze/correlate sinks/analyze/report)

# A program with the race detector waits a second at its exit, and many tests start their own.
test: ## all tests, with the race detector where goroutines are
	$(GO) vet ./...
	GORACE=atexit_sleep_ms=0 $(GO) test -race -timeout 20m $$($(GO) list ./... | grep -vE '($(subst $() ,|,$(PLAIN:.%=%)))$$')
	$(GO) test -timeout 20m $(PLAIN)

test-vllm: build ## a sweep with real vLLM on this machine: make test-vllm VLLM=DIR/bin/vllm
	@test -n "$(VLLM)" || { echo "which vLLM? make test-vllm VLLM=DIR/bin/vllm"; exit 2; }
	VRAMSWEEP_TEST_VLLM=$(abspath $(VLLM)) $(GO) test ./cmd/vramsweep -run TestRealVLLM -count=1 -v -timeout 60m

lint: ## layers, style, correctness
	$(TOOLS) golangci-lint run ./...

deadcode: ## functions that the command cannot reach; there are none
	@out=$$($(TOOLS) deadcode ./cmd/vramsweep) && if [ -n "$$out" ]; then echo "$$out"; exit 1; fi

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

attack: build ## 500 flipped bytes, 100 hostile engines, planted secrets, odd output paths
	$(GO) test ./sinks ./cmd/vramsweep -run TestAttack -count=1 -v -timeout 120m -attack

power: ## how small a change compare finds, and how often it calls what is none
	$(GO) test ./sinks/analyze/compare -run 'TestNothingChanged|TestPower' -count=1 -v -timeout 30m -power

trust: ## 1,000 simulated runs, and 100 pairs: is a figure wrong by more than it says, is an unchanged pair called?
	$(GO) test ./runner/simulate -run 'TestNoClaim|TestFewNulls|TestSameSeedSeen|TestUnchanged|TestPlantedChange' \
	  -count=1 -v -timeout 60m -trust 1000

accuracy: ## predicted against measured, on the recordings
	$(GO) test ./sinks/analyze/calibrate -run TestAccuracy -count=1 -v

laws: ## sweep/models/laws/h200-v0.33.json anew, fitted to its recording
	$(GO) test ./sinks/analyze/calibrate -run TestLawsAreFitted -count=1 -update

overheads: build ## docs/measured/overheads/overheads.json anew; needs zstd, and others' logs beside the checkout
	@test -d $(CORPUS)/h100-v0.19 || \
	  { echo "make overheads needs the logs in $(CORPUS)/h100-v0.19, which is not there; CORPUS=DIR names another place"; exit 2; }
	rm -rf bin/overheads && mkdir -p bin/overheads
	$(BIN) import --gpu "$(H100)" --output-dir bin/overheads/h100-v0.19 $(CORPUS)/h100-v0.19 || [ $$? -eq 3 ]
	for r in h100-v0.26 h100x2-v0.26; do zstd -dc runner/recorded/testdata/$$r.tar.zst | tar x -C bin/overheads || exit 1; done
	$(BIN) reparse bin/overheads/h100-v0.26
	$(BIN) overhead build --gpu "$(H100)" $(addprefix bin/overheads/,h100-v0.19 h100-v0.26) \
	  $(addprefix bin/overheads/h100x2-v0.26/,tp1-llama-3.1-8b tp1-qwen3-4b tensor-parallel graphs session-as-latency) -o bin/overheads/overheads.json
	cmp bin/overheads/overheads.json docs/measured/overheads/overheads.json || cp bin/overheads/overheads.json docs/measured/overheads/

fuzz: ## every fuzz test for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$f"; $(GO) test $$pkg -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) || exit 1; done; done

golden: ## rewrite golden files; read the diff
	$(GO) test ./... -update

clean:
	rm -rf bin demo-results
