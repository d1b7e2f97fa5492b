package vllm

import (
	"slices"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// engineFlags are the flags of Args that the engine takes, without those of the
// benchmark: what session mode starts its engine with.
func engineFlags(p *sweep.Profile, devices []runner.Device) ([]string, error) {
	bare := *p
	// Versions before 0.8.5 have no such verb, and before 0.6.4 their script takes
	// few flags: neither holds for the engine itself.
	bare.Engine.Command, bare.Engine.Benchmark = nil, []string{"vllm", "bench", "latency"}
	if models.Older(bare.Engine.VLLMVersion, 0, 6, 4) {
		bare.Engine.VLLMVersion = "0.6.4"
	}
	argv, err := Args(&bare, Paths{Devices: devices})
	if err != nil {
		return nil, err
	}
	// What belongs to the benchmark and not to the engine; each takes one value.
	own := []string{"--input-len", "--output-len", "--batch-size", "--num-iters", "--num-iters-warmup"}
	var flags []string
	for i := len(bare.Engine.Benchmark); i < len(argv); i++ {
		if slices.Contains(own, argv[i]) {
			i++
			continue
		}
		flags = append(flags, argv[i])
	}
	return flags, nil
}
