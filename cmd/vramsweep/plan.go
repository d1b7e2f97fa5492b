package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner/gpu"
	"github.com/vramsweep/vramsweep/runner/planner"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep"
)

type planFlags struct {
	json    bool
	limit   int
	profile string
	gpu     string
	mode    string
	shards  int
	laws    string

	overheads overheadsFlag
}

// planVerb shows what a sweep will do and need.
func (w *world) planVerb() *cobra.Command {
	var f planFlags
	cmd := w.fileVerb("plan", "The profiles in order: memory, fit, expected time", &f.json, "print JSON",
		func(ctx context.Context, _ string, plan *sweep.Plan) error { return w.plan(ctx, plan, &f) })
	flags := cmd.Flags()
	flags.IntVar(&f.limit, "limit", 0, "show the first N profiles; the counts are of all")
	flags.StringVar(&f.profile, "profile", "", "show one profile whole, with where each value comes from")
	flags.StringVar(&f.gpu, "gpu", "", "plan for this GPU: a name of the catalogue or of a gpu block")
	flags.StringVar(&f.mode, "mode", "", "latency or session: how the engine would be used")
	flags.IntVar(&f.shards, "shards", 0, "show how run --shard I/N would deal the plan to N runners")
	flags.StringVar(&f.laws, "laws", "", "`FILE` of vramsweep calibrate: laid over the laws that are found otherwise")
	flags.StringVar(&f.overheads.file, "overheads", "",
		"`FILE` of vramsweep overhead build: what was measured stands in for what is computed")
	return cmd
}

func (w *world) plan(ctx context.Context, plan *sweep.Plan, f *planFlags) error {
	if err := f.overheads.load(plan); err != nil {
		return err
	}
	if err := setMode(plan, f.mode); err != nil {
		return err
	}
	if f.shards != 0 {
		return w.planShards(plan, f)
	}
	laws, err := w.laws(plan, f.laws)
	if err != nil {
		return err
	}
	width, tty := terminal(w.stdout)
	if !tty {
		width = 0
	}
	p := &planner.Planner{
		Width: width,
		Plan:  plan, Times: w.earlierTimes(plan), Env: w.env, Limit: f.limit,
		Estimate: f.overheads.estimate, Basis: f.overheads.says(), Laws: laws,
	}
	if err := w.planFor(ctx, p, f.gpu); err != nil {
		return err
	}
	switch {
	case f.profile != "":
		one, err := p.Find(f.profile)
		switch {
		case err != nil:
			return usageError("", "%w", err)
		case one == nil:
			return usageError("vramsweep plan FILE lists them.", "no profile of the plan has an id that begins with %q",
				f.profile)
		case f.json:
			return printJSON(w.stdout, one)
		}
		return one.Text(w.stdout)
	case f.json:
		d, err := p.Document()
		if err != nil {
			return usageError("", "%w", err)
		}
		return printJSON(w.stdout, d)
	}
	return p.Text(w.stdout)
}

// planShards shows the parts that runners of the plan would have.
func (w *world) planShards(plan *sweep.Plan, f *planFlags) error {
	if f.shards < 1 {
		return usageError("", "--shards %d: expected 1 or more", f.shards)
	}
	shards := planner.Cut(plan, f.shards)
	if f.json {
		return printJSON(w.stdout, shards)
	}
	return planner.ShardsText(w.stdout, shards)
}

// planFor sets the GPU of a plan: as it is named, else the file's only one, else
// this machine's.
func (w *world) planFor(ctx context.Context, p *planner.Planner, name string) error {
	blocks := p.Plan.GPUs
	g, known := planner.NamedGPU(name, blocks)
	p.From = "--gpu"
	switch {
	case name != "" && !known:
		return usageError("", "--gpu %s: no such GPU; there are %s", name, strings.Join(planner.GPUNames(blocks), ", "))
	case name != "":
	case len(blocks) == 1:
		g, known = planner.NamedGPU(blocks[0].Name, blocks)
		p.From = "the gpu block"
	default:
		machine := gpu.Detect(ctx, w.machineOptions(nil), false)
		g, known = planner.GPUOf(machine.Found(), blocks, nil)
		p.From = "this machine"
	}
	if known {
		p.GPU = &g
	}
	return nil
}

// earlierTimes reads what earlier executions in the output folder took.
func (w *world) earlierTimes(plan *sweep.Plan) planner.Times {
	t := planner.Times{Dir: plan.OutputDir}
	for row, err := range sinks.Read[sinks.RunRow](sinks.Predicate{}, w.path(plan.OutputDir)) {
		if err != nil {
			break // no folder yet, or one that only `verify` can speak about
		}
		if row.WallS != nil && row.Outcome == "ok" {
			warm := row.StartMode != nil && *row.StartMode == "warm"
			t.Add(row.ProfileID, row.Engine, row.EngineMode, warm, *row.WallS, row.ImportSeconds)
		}
	}
	return t
}

// fileVerb is a verb that reads a sweep file and does something with its plan.
// With --json, which jsonHelp describes, diagnostics are JSON too.
func (w *world) fileVerb(
	name, short string, asJSON *bool, jsonHelp string, do func(ctx context.Context, file string, plan *sweep.Plan) error,
) *cobra.Command {
	var inputs inputFlags
	cmd := verb(name+" FILE|FOLDER", short, exactArgs("FILE"), func(cmd *cobra.Command, args []string) error {
		w.quick()
		plan, err := w.load(args[0], &inputs, *asJSON)
		if err != nil {
			return err
		}
		return do(cmd.Context(), args[0], plan)
	})
	inputs.add(cmd)
	cmd.Flags().BoolVar(asJSON, "json", false, jsonHelp)
	return cmd
}
