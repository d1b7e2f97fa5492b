// Package runner executes the profiles of a plan, one after another, and keeps
// what was measured.
//
// Start with runner.go: what an Engine, a Sampler and a Sink are, and how a run
// goes through them. result.go is the record of a run, which is also run.json.
// The package starts no process, parses no log and writes no file itself.
package runner
