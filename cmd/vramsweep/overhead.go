package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner/planner"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
	"github.com/vramsweep/vramsweep/sinks/analyze/overhead"
	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// overheadVerb builds and asks the database of overheads.
func (w *world) overheadVerb() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "overhead",
		Short: "A database of what architecture alone does not give",
		Args:  exactArgs(),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(w.overheadBuildVerb(), w.overheadMergeVerb(), w.overheadDiffVerb(), w.overheadShowVerb(),
		w.overheadPredictVerb())
	return cmd
}

// An overheadOutput is where a database goes and what is printed of it.
type overheadOutput struct {
	file, parquet string
	quiet, json   bool
}

func (o *overheadOutput) add(cmd *cobra.Command, file string) {
	flags := cmd.Flags()
	if file != "" {
		flags.StringVarP(&o.file, "output", "o", file, "FILE, - for standard output")
	}
	flags.StringVar(&o.parquet, "parquet", "", "write the entries to FILE as well, a row each")
	flags.BoolVar(&o.quiet, "quiet", false, "print the validation alone")
}

func (w *world) overheadBuildVerb() *cobra.Command {
	var o overheadOutput
	var merge []string
	var gpuName string
	cmd := &cobra.Command{
		Use:   "build DIR...",
		Short: "Build it from output folders; prints what it is worth for an unseen model",
		Args:  minArgs("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			db, err := w.buildOverheads(args, gpuName)
			if err != nil {
				return err
			}
			if err := mergeInto(db, merge); err != nil {
				return err
			}
			return w.putOverheads(db, &o)
		},
	}
	o.add(cmd, "overheads.json")
	cmd.Flags().StringSliceVar(&merge, "merge", nil, "databases to add; runs that both have count once")
	cmd.Flags().StringVar(&gpuName, "gpu", "", "the GPU of runs that do not name theirs (recordings, logs)")
	return cmd
}

// buildOverheads reads what a database is made of.
func (w *world) buildOverheads(dirs []string, gpuName string) (*overhead.Database, error) {
	rows, err := w.runsOf(dirs, sinks.Predicate{})
	if err != nil {
		return nil, err
	}
	find, err := w.namedArchitectures()
	if err != nil {
		return nil, err
	}
	in := overhead.Input{Runs: rows, Find: find, GPU: gpuName}
	for _, name := range dirs {
		dir, where, err := w.sourceOf(name)
		if err != nil {
			return nil, err
		}
		if in.Ranks, err = appendRows(in.Ranks, where, dir); err != nil {
			return nil, err
		}
		if in.Steps, err = appendRows(in.Steps, where, dir); err != nil {
			return nil, err
		}
	}
	db, err := overhead.Build(in)
	if err != nil {
		return nil, usageError("", "%w", err)
	}
	return db, nil
}

// namedArchitectures finds the architecture of a run as architectures does; of
// several of the very same shape, that whose name the run's model is a part of
// (models/llama-3.1-8b is no DeepSeek distillate).
func (w *world) namedArchitectures() (func(*sinks.RunRow) *models.Architecture, error) {
	find, err := w.architectures()
	if err != nil {
		return nil, err
	}
	catalogue, err := w.catalogue()
	if err != nil {
		return nil, err
	}
	return func(r *sinks.RunRow) *models.Architecture {
		a := find(r)
		base := strings.ToLower(filepath.Base(r.Model))
		if a == nil || strings.Contains(strings.ToLower(a.ID), base) {
			return a
		}
		for _, name := range catalogue.Names() {
			b, _ := catalogue.Lookup(name)
			if strings.Contains(strings.ToLower(name), base) && b.Quantization == nil && a.Quantization == nil &&
				overhead.ShapeOf(b) == overhead.ShapeOf(a) && b.IntermediateSize == a.IntermediateSize {
				return b
			}
		}
		return a
	}, nil
}

// appendRows reads one table of a folder.
func appendRows[T sinks.Row](rows []T, where sinks.Predicate, dir string) ([]T, error) {
	for row, err := range sinks.Read[T](where, dir) {
		if err != nil {
			return nil, usageError("vramsweep verify "+dir+" says what is wrong with it.", "%w", err)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func mergeInto(db *overhead.Database, names []string) error {
	for _, name := range names {
		other, err := readOverheads(name)
		if err != nil {
			return err
		}
		if err := db.Merge(other); err != nil {
			return usageError("", "%s: %w", name, err)
		}
	}
	return nil
}

// putOverheads writes a database and prints it.
func (w *world) putOverheads(db *overhead.Database, o *overheadOutput) error {
	out := w.stdout
	if o.file == "-" {
		out = w.stderr // standard output is the database
	}
	if o.file != "" {
		if err := w.writeTo(o.file, db.Write); err != nil {
			return err
		}
	}
	if o.parquet != "" {
		columns, rows := db.Rows()
		if err := sinks.WriteRows(o.parquet, columns, rows); err != nil {
			return err
		}
	}
	v := db.Validate()
	if o.json {
		return printJSON(out, v)
	}
	if !o.quiet {
		if err := db.Text(out); err != nil {
			return err
		}
	}
	if err := errors.Join(v.Text(out), v.ByModel(out)); err != nil {
		return err
	}
	return v.Outliers(out, 3, 0.05)
}

func (w *world) overheadMergeVerb() *cobra.Command {
	var o overheadOutput
	cmd := &cobra.Command{
		Use:   "merge FILE FILE...",
		Short: "Join databases, of several machines for instance; runs that two have count once",
		Args:  minArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			db, err := readOverheads(args[0])
			if err != nil {
				return err
			}
			if err := mergeInto(db, args[1:]); err != nil {
				return err
			}
			return w.putOverheads(db, &o)
		},
	}
	o.add(cmd, "overheads.json")
	return cmd
}

func (w *world) overheadDiffVerb() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "What came, went and moved between two databases; exit 4 where a coefficient left its interval",
		Args:  exactArgs("OLD", "NEW"),
		RunE: func(_ *cobra.Command, args []string) error {
			before, err := readOverheads(args[0])
			if err != nil {
				return err
			}
			after, err := readOverheads(args[1])
			if err != nil {
				return err
			}
			d, err := before.Diff(after)
			if err != nil {
				return usageError("", "%w", err)
			}
			if err = printed(w.stdout, asJSON, d); err == nil && d.Moved() {
				return quiet(exitFindings)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (w *world) overheadShowVerb() *cobra.Command {
	var o overheadOutput
	cmd := &cobra.Command{
		Use:   "show FILE",
		Short: "The entries of a database, and what it is worth for an unseen model",
		Args:  exactArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			db, err := readOverheads(args[0])
			if err != nil {
				return err
			}
			return w.putOverheads(db, &o)
		},
	}
	o.add(cmd, "")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the validation, with each prediction, as JSON")
	return cmd
}

func readOverheads(name string) (*overhead.Database, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, usageError("vramsweep overhead build makes one.", "%w", err)
	}
	defer file.Close() //nolint:errcheck // only read from
	db, err := overhead.Read(file)
	if err != nil {
		return nil, usageError("", "%s: %w", name, err)
	}
	return db, nil
}

// predictFlags are a profile as flags. Zero is left to vLLM.
type predictFlags struct {
	file, gpu, defaults                string
	maxModelLen, maxSeqs, tokens       int64
	utilization                        float64
	asJSON                             bool
	quantization, dtype, kvCacheDtype  string
	version, modelRunner, compileCache string
}

func (w *world) overheadPredictVerb() *cobra.Command {
	var q overhead.Query
	var f predictFlags
	cmd := &cobra.Command{
		Use:   "predict",
		Short: "What the database says of a profile, and what that rests on",
		Args:  exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			db, err := readOverheads(f.file)
			if err != nil {
				return err
			}
			if err := w.completeQuery(db, &q, &f); err != nil {
				return err
			}
			return printed(w.stdout, f.asJSON, db.Predict(q))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.file, "overheads", "overheads.json", "FILE")
	flags.StringVar(&q.Model, "model", "", "a name of the database or the catalogue, or a folder with config.json")
	flags.StringVar(&f.gpu, "gpu", "",
		"as in the catalogue or as the driver names it; default: the database's, if it has one alone")
	flags.Int64Var(&q.TP, "tensor-parallel-size", 1, "ranks of a stage")
	flags.Int64Var(&q.PP, "pipeline-parallel-size", 1, "stages")
	flags.StringVar(&f.version, "vllm-version", "", "default: the newest that the arithmetic knows")
	flags.StringVar(&f.modelRunner, "model-runner", "", "v1 or v2; default: the version's")
	flags.StringVar(&f.compileCache, "compile", "cold", "eager, cold or warm (is it compiled, and is the cache filled?)")
	flags.StringVar(&f.dtype, "dtype", "", "default: the checkpoint's")
	flags.StringVar(&f.kvCacheDtype, "kv-cache-dtype", "", "default: the checkpoint's")
	flags.StringVar(&f.quantization, "quantization", "", "what vLLM converts to while loading; default: none")
	flags.Int64Var(&f.tokens, "max-num-batched-tokens", 0, "default: vLLM's")
	flags.Int64Var(&f.maxSeqs, "max-num-seqs", 0, "default: vLLM's")
	flags.Int64Var(&f.maxModelLen, "max-model-len", 0, "default: the model's")
	flags.Float64Var(&f.utilization, "gpu-memory-utilization", 0, "default: vLLM's")
	flags.Int64Var(&q.Request.InputLen, "input-len", 0, "tokens of a prompt; default: as many as fill a batch")
	flags.Int64Var(&q.Request.BatchSize, "batch-size", 0, "prompts at once")
	flags.StringVar(&f.defaults, "defaults", "", "serve: the API server's limits; default: those of the benchmark")
	flags.BoolVar(&f.asJSON, "json", false, "print JSON")
	return cmd
}

// completeQuery makes a query of flags: the architecture from the database
// where it knows the model, else from the catalogue or a config.json.
func (w *world) completeQuery(db *overhead.Database, q *overhead.Query, f *predictFlags) error {
	if q.Model == "" {
		return usageError("", "overhead predict: --model is missing")
	}
	if f.compileCache != "eager" && f.compileCache != "cold" && f.compileCache != "warm" {
		return usageError("", "overhead predict: --compile %q, expected eager, cold or warm", f.compileCache)
	}
	a := db.Architecture(q.Model)
	if a == nil {
		var err error
		if a, err = w.architecture(q.Model); err != nil {
			return err
		}
	}
	set := func(n int64) *int64 {
		if n == 0 {
			return nil
		}
		return &n
	}
	r := &q.Request
	r.TensorParallelSize, r.PipelineParallelSize = q.TP, q.PP
	r.Dtype, r.KVCacheDtype, r.Quantization = f.dtype, f.kvCacheDtype, f.quantization
	r.MaxModelLen, r.MaxNumSeqs, r.MaxNumBatchedTokens = set(f.maxModelLen), set(f.maxSeqs), set(f.tokens)
	if f.utilization > 0 {
		r.GPUMemoryUtilization = &f.utilization
	}
	r.EnforceEager, r.CompileCache = f.compileCache == "eager", f.compileCache
	r.Version, r.ModelRunner, r.Defaults = f.version, f.modelRunner, f.defaults
	device, err := deviceOf(db, f.gpu)
	if err != nil {
		return err
	}
	*q = overheadQuery(a, *r, device)
	return nil
}

// deviceOf is the GPU of a query: the database's only one where none is named.
func deviceOf(db *overhead.Database, name string) (models.GPU, error) {
	if name == "" {
		gpus := db.GPUs()
		if len(gpus) != 1 {
			return models.GPU{}, usageError("", "overhead predict: --gpu is missing; the database has runs on %s",
				strings.Join(gpus, ", "))
		}
		name = gpus[0]
	}
	if g, ok := models.LookupGPU(name); ok {
		return g, nil
	}
	return models.GPU{Product: name}, nil // the arithmetic knows nothing of it, the database may
}

// overheadQuery asks for a profile of an architecture on a device.
func overheadQuery(a *models.Architecture, r models.Request, g models.GPU) overhead.Query {
	e := models.NewEstimate(a, r, g)
	q := overhead.Query{Architecture: a, Request: r, Device: g}
	q.TP, q.PP, q.GPU = r.TensorParallelSize, r.PipelineParallelSize, g.Product
	if q.GPU == "" {
		q.GPU = g.Name
	}
	q.VLLM, q.Runner, q.Compile = cmp.Or(r.Version, e.Version), e.ModelRunner, r.CompileCache
	switch {
	case r.EnforceEager:
		q.Compile = "eager"
	case q.Compile == "":
		q.Compile = "cold" // the first run of a profile compiles, and that takes the most
	}
	q.Dtype, q.Quantization = r.Dtype, r.Quantization
	if q.Dtype == "auto" {
		q.Dtype = ""
	}
	if a == nil {
		return q
	}
	q.Model, q.Family, q.Shape = a.ID, a.Family, overhead.ShapeOf(a)
	if q.Dtype == "" {
		q.Dtype = a.NativeDtype
	}
	switch {
	case a.Quantization != nil:
		q.Quantization = a.Quantization.Method
	case q.Quantization == "" || q.Quantization == "auto":
		q.Quantization = "none"
	}
	return q
}

// An overheadsFlag is `--overheads FILE` of a verb that plans.
type overheadsFlag struct {
	file string
	db   *overhead.Database
}

// overheadsOf are the figures of a planned profile that rest on a database.
type overheadsOf struct {
	File      string          `json:"file"`
	Synthetic bool            `json:"synthetic"` // it is of simulated runs
	Parts     []overhead.Part `json:"parts"`
	Highest   models.Figure   `json:"highest_bytes"`
}

// load reads the database for a plan. What was simulated says nothing of a real run.
func (o *overheadsFlag) load(plan *sweep.Plan) (err error) {
	if o.file == "" {
		return nil
	}
	if o.db, err = readOverheads(o.file); err != nil || !o.db.Synthetic {
		return err
	}
	for _, s := range plan.Sweeps {
		for _, p := range s.Profiles {
			if p.Engine.Kind != "simulator" {
				return usageError(`Name a database of measured runs, or plan engine "simulator".`,
					"%s is of simulated runs, and profile %s of sweep %q is for engine %q", o.file, p.ID, s.Name, p.Engine.Kind)
			}
		}
	}
	return nil
}

// HighestUse is a figure that no arithmetic has.
func (u *overheadsOf) HighestUse() models.Figure { return u.Highest }

// estimate is the arithmetic's with what the database knows better laid over
// it; used is nil without a database.
func (o *overheadsFlag) estimate(
	a *models.Architecture, r models.Request, g models.GPU,
) (e models.Estimate, used planner.Overheads) {
	if o.db == nil {
		return models.NewEstimate(a, r, g), nil
	}
	p := o.db.Predict(overheadQuery(a, r, g))
	return p.Estimate, &overheadsOf{File: o.file, Synthetic: p.Synthetic, Parts: p.Parts, Highest: p.Highest}
}

// Notes says, for the end of a plan, which figures rest on the database, and on
// how much of it: components of one basis together.
func (u *overheadsOf) Notes() []string {
	names := map[string][]string{}
	var order []string
	for i := range u.Parts {
		part := &u.Parts[i]
		text := ""
		switch {
		case part.Component == "growth_excess": // a part of in_use
		case part.Component == "graph_estimate" && part.Bytes == nil, part.Component == "weights" && part.Bytes == nil:
			// nothing is taken off; they follow from the architecture
		case part.Bytes == nil && part.Component == "in_use":
			text = "not known, and so neither is the highest use: " + part.Reason
		case part.Bytes == nil:
			text = "computed alone: " + part.Reason
		case part.Runs > 0 && part.Reason != "":
			text = part.From() + " (" + part.Reason + ")"
		case part.Runs > 0:
			text = part.From()
		}
		if text == "" {
			continue
		}
		if names[text] == nil {
			order = append(order, text)
		}
		names[text] = append(names[text], part.Component)
	}
	var out []string
	for _, text := range order {
		out = append(out, strings.Join(names[text], ", ")+": "+text)
	}
	return out
}

// says names the database in the head line of a plan.
func (o *overheadsFlag) says() string {
	if o.db == nil {
		return ""
	}
	return fmt.Sprintf(" with %s (%d %s runs)", o.file, len(o.db.Runs), frame.Kind(o.db.Synthetic))
}
