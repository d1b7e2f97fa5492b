// Package replay reads the recording of a run that was made elsewhere: its
// logs, its latency.json and its samples, as a Job and a Measured that an
// Attributor takes as it takes those of a live run.
//
// A recording has no arrival times of log lines, only vLLM's whole-second
// stamps; the attribution says so in the uncertainty of each phase.
package replay
