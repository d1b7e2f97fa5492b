// Package gpu finds the GPUs of a machine, reads them at a fixed rate and reads
// them once in full.
//
// Detect looks once at what a machine has and what works on it; the Machine
// that it returns makes the samplers of each run, is the runner.Inspector and
// says of every source why it serves or does not. It is the facade of runner/gpu/nvidia
// (NVML in a helper child process, one long-lived nvidia-smi), runner/gpu/amd (the
// sysfs files of amdgpu, amd-smi and rocm-smi as slow stand-ins) and
// runner/gpu/host (/proc for the host's side); what these share is in
// runner/gpu/sampling.
//
// The packages start programs only through runner/proc, read no environment
// and no argument of their own process, and take their roots (/proc, /sys, /dev),
// program names and clock base from Options. They refuse to invent: a figure
// that a source lacks is absent from the sample and has a reason in the
// sampler's report.
package gpu
