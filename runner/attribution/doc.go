// Package attribution says where the memory of a run went, told twice: by
// vLLM's own account (its log) and by the driver (the steps of the sampled
// memory between the phase boundaries).
//
// It owns the phases, the driver's steps, the account of each rank in bytes,
// the breakdown of the net increase, the explanation of use above
// gpu_memory_utilization, and the condensed timeline of a run. It reads
// samples as a stream, twice, and keeps a run-length encoding of the memory
// only: a run of hours costs it a few MiB.
//
// It refuses to guess. A figure that neither witness gives is nil and has an
// entry in the result's Missing; what neither explains is named so
// (framework_overhead), negative or not; and no term is fitted to a run.
package attribution
