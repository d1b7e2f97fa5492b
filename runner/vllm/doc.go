// Package vllm runs vLLM's latency benchmark and reads what vLLM writes: its
// log of any version from 0.4 on, its result file, its failures.
//
// The log reader has three stages. line.go turns bytes into records (prefixes
// of every age and wrapper away, process and stamp kept); facts.go knows which
// text of which version holds which figure; account.go turns the facts of one
// engine into a runner.Account, per rank, with the budget of budget.go and the
// failure of failure.go. docs/logs.md lists every line that is read.
//
// The package reads no environment, prints nothing and starts programs only
// through runner/proc. A figure that the log does not hold is nil with a
// reason; the reader prefers nil to a guess.
package vllm
