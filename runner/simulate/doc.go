// Package simulate stands in for the `vllm` command and for a GPU on machines
// that have none: so that any sweep file can be tried on a laptop, and so that
// the whole product is tested end to end. It is never a substitute for a
// measurement, and whatever it makes says that it is synthetic.
//
// It has four parts:
//
//   - VLLM behaves as the command does: flags, log lines in the format of a
//     chosen version, tqdm bars, the result file, exit codes, failures with
//     their true texts. It is the child program.
//   - Engine and SessionEngine let the runner start it as it starts vLLM.
//   - The simulated processes publish what they hold on each GPU in small files
//     of a state directory. A figure lasts as long as its process is alive.
//   - Device reads that directory as a driver would: it is what Sampler and
//     Inspector show to the runner.
//
// Memory follows from the arithmetic of sweep/models, times from a plain
// roofline (times.go); both are moved by seeded noise and by planted changes.
// One run is one script (script.go): what is printed, and what each GPU holds,
// at which simulated second. The player follows the script in wall time.
//
// What is printed stands in words/*.txt, a file a version, from this project's
// own recordings of 0.26 and 0.33. A further version is a further file, and
// what its start-up does differently (scenario.go, figures.go).
package simulate
