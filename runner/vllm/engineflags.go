package vllm

import (
	"errors"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
	"github.com/vramsweep/vramsweep/sweep"
)

// EngineFlags are the flags of Args that the engine takes, without those of the
// benchmark: what session mode starts its engine with.
func EngineFlags(p *sweep.Profile, devices []runner.Device) ([]string, error) {
	b := &argBuilder{p: p, version: p.Engine.VLLMVersion}
	if b.older(0, 6, 4) {
		b.version = "0.6.4" // the benchmark's script took few flags before; the engine always took them all
	}
	b.flags(p.Settings.Flags(true), devices)
	return b.argv, errors.Join(b.errs...)
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
