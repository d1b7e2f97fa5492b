// Package simulate stands in for the `vllm` command and for a GPU on machines
// that have none: so that any sweep file can be tried on a laptop, and so that
// the whole product is tested end to end. It is never a substitute for a
// measurement, and whatever it makes says that it is synthetic.
//
// It has four parts:
//
//   - VLLM behaves as the command does: flags, log lines in the format of a
//     chosen version, tqdm bars, the result file, exit codes, failures with
//     their true texts. It is the child program; the runner starts it as it
//     starts vLLM, through Command or Engine.
//   - The simulated processes publish what they hold on each GPU in small files
//     of a state directory. A figure lasts as long as its process is alive.
//   - Device reads that directory as a driver would: it is what Sampler and
//     Inspector show to the runner.
//   - Generator makes whole results in this process, without any child, for
//     building large tables; it tells what the processes would have told.
//
// Memory follows from the arithmetic of sweep/models, times from a plain
// roofline (times.go); both are moved by seeded noise and by planted changes.
// One run is one script (script.go): what is printed, and what each GPU holds,
// at which simulated second. The player follows the script in wall time, the
// generator reads it without waiting, so both agree by construction.
//
// The formats of the lines are those of the page on vLLM's logs (0.6 to 0.29)
// and of this project's own recordings of 0.26 and 0.29.
package simulate
