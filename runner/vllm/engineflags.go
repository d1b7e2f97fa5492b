package vllm

import (
	"errors"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
)

// engineFlags are the flags of Args that the engine takes, without those of the
// benchmark: what session mode starts its engine with.
func engineFlags(p *sweep.Profile, devices []runner.Device) ([]string, error) {
	b := &argBuilder{p: p, version: p.Engine.VLLMVersion}
	if b.older(0, 6, 4) {
		b.version = "0.6.4" // the benchmark's script took few flags before; the engine always took them all
	}
	b.flags(p.Settings.Flags(true), devices)
	return b.argv, errors.Join(b.errs...)
}
