package gpu

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/runnertest"
)

// TestConformance holds the samplers of all sources against what every sampler
// promises.
func TestConformance(t *testing.T) {
	smi := fakeTools(t, []string{"nvidia-smi"}, "FAKE_GPUS=2", "FAKE_PIDS="+strconv.Itoa(os.Getpid()))
	for name, o := range map[string]Options{
		"nvidia-smi": smi,
		"nvml":       nvmlOptions(t, stubNVML(t), "STUB_GPUS=2"),
		"amdgpu":     fakeSys(t, 2),
	} {
		t.Run(name, func(t *testing.T) {
			m := Detect(t.Context(), o, false)
			defer m.Close()
			runnertest.Sampler(t, func(t *testing.T) runner.Sampler {
				samplers, err := m.Samplers(Run{
					Interval: 10 * time.Millisecond, PIDs: func() []int { return []int{os.Getpid()} },
				})
				if err != nil {
					t.Fatal(err)
				}
				return samplers[0]
			})
		})
	}
	t.Run("broken", func(t *testing.T) {
		dies := fakeTools(t, []string{"nvidia-smi"}, "FAKE_MODE=die", "FAKE_TICKS=0", "FAKE_STARTS=1000")
		samplers, err := Detect(t.Context(), dies, false).Samplers(Run{Interval: 10 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		runnertest.Broken(t, samplers[0])
	})
}
