package simulate

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// TestMain lets the test binary be the simulated vllm: the tests start it as
// the runner starts `vramsweep simulate-vllm --`.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "simulate-vllm" && os.Args[2] == "--" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		code := VLLM(ctx, os.Args[3:], os.Environ(), os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}
