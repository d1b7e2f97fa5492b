package vllm

import (
	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/sweep"
)

// benchmarkFlags belong to `vllm bench latency`, not to the engine; each takes
// one value.
func benchmarkFlags() map[string]bool {
	return map[string]bool{"--input-len": true, "--output-len": true, "--batch-size": true, "--num-iters": true, "--num-iters-warmup": true}
}

// EngineFlags are the flags of Args that the engine takes, without those of the
// benchmark: what session mode starts its engine with.
func EngineFlags(p *sweep.Profile, devices []runner.Device) ([]string, error) {
	bare := *p
	// Versions before 0.8.5 have no such verb, and before 0.6.4 their script takes
	// few flags: neither holds for the engine itself.
	bare.Engine.Command, bare.Engine.Benchmark = nil, []string{"vllm", "bench", "latency"}
	if olderThan(bare.Engine.VLLMVersion, 0, 6, 4) {
		bare.Engine.VLLMVersion = "0.6.4"
	}
	argv, err := Args(&bare, Paths{Devices: devices})
	if err != nil {
		return nil, err
	}
	const program = 3 // vllm bench latency
	skip := benchmarkFlags()
	var flags []string
	for i := program; i < len(argv); i++ {
		if skip[argv[i]] {
			i++ // its value
			continue
		}
		flags = append(flags, argv[i])
	}
	return flags, nil
}

// ChildEnv is the environment of a run's engine (base, the devices, the
// sweep's own variables) and what takes the secrets in it out of what is kept.
func ChildEnv(base []string, job *runner.Job) ([]string, *proc.Masker) {
	env, sensitive := runEnv(base, job)
	return env, proc.NewMasker(env, sensitive...)
}

// KnownEnv is what of an environment stands in the record of a run: names and
// values that matter, without secrets.
func KnownEnv(env []string, masker *proc.Masker) map[string]string { return knownEnv(env, masker) }
