package main

import (
	_ "embed"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner/planner"
	"github.com/vramsweep/vramsweep/runner/vllm"
	"github.com/vramsweep/vramsweep/sweep"
)

// The jobs that emit prints, with words in braces for what differs. docs/cluster.md
// says what each scheduler does with them.
var (
	//go:embed jobs/slurm.sh
	slurmJob string
	//go:embed jobs/k8s.yaml
	k8sJob string
	//go:embed jobs/buildkite.yml
	buildkiteJob string
	//go:embed jobs/github.yml
	githubJob string
)

type emitFlags struct {
	shards, gpus     int
	outputDir, image string
}

// emitVerb prints a scheduler's job that runs a file in shards.
func (w *world) emitVerb() *cobra.Command {
	var inputs inputFlags
	var f emitFlags
	cmd := verb("emit SCHEDULER FILE|FOLDER", "Print a job that runs a file in shards: slurm, k8s, buildkite or github",
		exactArgs("SCHEDULER", "FILE"), func(_ *cobra.Command, args []string) error {
			plan, err := w.load(args[1], &inputs, false)
			if err != nil {
				return err
			}
			return w.emit(args[0], args[1], plan, &f)
		})
	cmd.Long = `Prints the job of a scheduler that runs a sweep file in N shards, to be edited and
handed in: vramsweep talks to no scheduler. All shards write one output folder, which
all hosts must share; docs/cluster.md says what happens where they share none.`
	cmd.Example = `  vramsweep emit slurm night.hcl --shards 6 > night.sh && sbatch night.sh
  vramsweep emit k8s night.hcl --shards 6 --image registry/vramsweep:1 | kubectl create -f -`
	inputs.add(cmd)
	flags := cmd.Flags()
	flags.IntVar(&f.shards, "shards", 1, "how many elements the job has")
	flags.IntVar(&f.gpus, "gpus", 0, "GPUs of an element; default: what the largest run needs")
	flags.StringVar(&f.outputDir, "output-dir", "", "the output folder instead of the file's")
	flags.StringVar(&f.image, "image", "vllm-vramsweep:latest", "k8s: an image with vLLM and vramsweep")
	return cmd
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

func (w *world) emit(scheduler, file string, plan *sweep.Plan, f *emitFlags) error {
	text, ok := map[string]string{"slurm": slurmJob, "k8s": k8sJob, "buildkite": buildkiteJob, "github": githubJob}[scheduler]
	if !ok {
		return usageError("There are slurm, k8s, buildkite and github.", "emit %s: no such scheduler", scheduler)
	}
	if f.shards < 1 || f.gpus < 0 {
		return usageError("", "emit --shards %d --gpus %d: expected 1 or more", f.shards, f.gpus)
	}
	gpus, numbers := f.gpus, make([]string, f.shards)
	for i, s := range planner.Cut(plan, f.shards) {
		numbers[i] = strconv.Itoa(s.Number)
		if f.gpus == 0 {
			gpus = max(gpus, s.GPUs)
		}
	}
	dir := plan.OutputDir
	if f.outputDir != "" {
		dir = f.outputDir
	}
	lanes := ""
	if gpus > 1 {
		lanes = " --lanes auto"
	}
	name := "vramsweep-" + strings.Trim(notInNames.ReplaceAllString(strings.ToLower(plan.Sweeps[0].Name), "-"), "-")
	fmt.Fprint(w.stdout, strings.NewReplacer(
		"{name}", name[:min(len(name), 40)], "{shards}", strconv.Itoa(f.shards), "{numbers}", strings.Join(numbers, ", "),
		"{gpus}", strconv.Itoa(gpus), "{file}", vllm.Paste([]string{file}), "{dir}", vllm.Paste([]string{dir}),
		"{image}", f.image, "{lanes}", lanes, "{laneargs}", strings.ReplaceAll(lanes, " ", ", "),
	).Replace(text))
	return nil
}
