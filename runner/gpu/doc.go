// Package gpu finds the GPUs of a machine, reads them at a fixed rate and reads
// them once in full.
//
// Detect looks once at what a machine has and what works on it; the Machine
// that it returns makes the samplers of each run, is the runner.Inspector and
// says of every source why it serves or does not. The sources: one long-lived
// nvidia-smi, NVML in a helper child process, the sysfs files of amdgpu,
// amd-smi and rocm-smi as slow stand-ins, and /proc for the host's side.
//
// The package starts programs only through runner/proc, reads no environment
// and no argument of its own process, and takes its roots (/proc, /sys, /dev),
// program names and clock base from Options. It refuses to invent: a figure
// that a source lacks is absent from the sample and has a reason in the
// sampler's report.
package gpu
