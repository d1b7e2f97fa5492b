package simulate

import (
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/runnertest"
)

// TestConformance holds the simulated sampler against what every sampler
// promises.
func TestConformance(t *testing.T) {
	runnertest.Sampler(t, func(t *testing.T) runner.Sampler {
		return &Sampler{Device: testDevice(t, 2), Interval: 10 * time.Millisecond}
	})
}
