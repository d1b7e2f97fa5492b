// Package vllm runs vLLM: in latency mode one `vllm bench latency` a run, in
// session mode many runs on one engine. It knows vLLM's command line, what its
// processes find in their environment, the benchmark's result file and the
// session driver. What vLLM logs is read by runner/vllm/log.
//
// The package reads no environment, prints nothing and starts programs only
// through runner/proc.
package vllm
