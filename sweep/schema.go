package sweep

import "slices"

// attrSpec describes one attribute of a block, for the reader of a file and
// for docs/language.md, whose tables are checked against this schema.
type attrSpec struct {
	name     string
	kind     string // as the page calls it: "string", "duration", "size", "expression", ...
	fallback string // what holds where the attribute is absent
	doc      string
	required bool
}

// blockSpec describes one type of block.
type blockSpec struct {
	name   string
	label  string // what the label is called; "": no label
	attrs  []attrSpec
	blocks []*blockSpec
	free   string // what other attributes mean; "": there are none
	single bool   // at most one in its parent
	needed bool   // at least one in its parent
	doc    string
}

func (s *blockSpec) attr(name string) *attrSpec {
	for i := range s.attrs {
		if s.attrs[i].name == name {
			return &s.attrs[i]
		}
	}
	return nil
}

func (s *blockSpec) block(name string) *blockSpec {
	for _, b := range s.blocks {
		if b.name == name {
			return b
		}
	}
	return nil
}

// names lists what may stand in the block, sorted.
func (s *blockSpec) names() (attrs, blocks []string) {
	for _, a := range s.attrs {
		attrs = append(attrs, a.name)
	}
	for _, b := range s.blocks {
		blocks = append(blocks, b.name)
	}
	slices.Sort(attrs)
	slices.Sort(blocks)
	return attrs, blocks
}

// schema is the whole language: what may stand where.
func schema() *blockSpec {
	return &blockSpec{
		doc: "A configuration: one file, or all *.hcl and *.hcl.json files of a folder.",
		blocks: []*blockSpec{
			variableSpec(), localsSpec(), modelSpec(), sweepSpec(), gpuSpec(), outputSpec(),
		},
	}
}

func variableSpec() *blockSpec {
	return &blockSpec{
		name: "variable", label: "name",
		doc: "A value that comes from outside: `default`, then VRAMSWEEP_VAR_name, then --var-file, then --var; the later wins.",
		attrs: []attrSpec{
			{name: "type", kind: "type", fallback: "any", doc: "`string`, `number`, `bool`, `list(...)`, `set(...)`, `map(...)`, `tuple([...])`, `object({...})`, `any`"},
			{name: "default", kind: "any", fallback: "none: a value must be given", doc: "the value where none is given; refers to nothing"},
			{name: "description", kind: "string", doc: "for readers"},
			{name: "sensitive", kind: "bool", fallback: "false", doc: "the value is shown nowhere and may only go into `env`"},
		},
		blocks: []*blockSpec{{
			name: "validation",
			doc:  "A rule that the value must keep; several may stand.",
			attrs: []attrSpec{
				{name: "condition", kind: "expression", required: true, doc: "true where the value is good; sees `var`"},
				{name: "error_message", kind: "string", required: true, doc: "what to say where it is not"},
			},
		}},
	}
}

func localsSpec() *blockSpec {
	return &blockSpec{name: "locals", free: "a name for an expression, seen as `local.NAME`", doc: "Names for expressions; their order is free."}
}

func modelSpec() *blockSpec {
	return &blockSpec{
		name: "model", label: "name",
		doc: "Adds a model to the catalogue, or lays fields over one that it has.",
		attrs: []attrSpec{
			{name: "hf_model_id", kind: "string", fallback: "that of `like`, else the label", doc: "what vLLM is given: a Hugging Face id or a folder with config.json"},
			{name: "like", kind: "string", fallback: "the catalogue's entry of the label or of `hf_model_id`", doc: "the catalogue's entry that the other fields are laid over"},
		},
		free: "a field of the architecture, as `vramsweep models show` names them (`num_layers`, `hidden_size`, ...)",
	}
}

func gpuSpec() *blockSpec {
	return &blockSpec{
		name: "gpu", label: "name",
		doc: "A device to plan for.",
		attrs: []attrSpec{
			{name: "like", kind: "string", doc: "the GPU of the catalogue that the other fields are laid over"},
			{name: "total_memory", kind: "size", fallback: "that of `like`", doc: "memory as torch counts it"},
			{name: "reserve", kind: "size", fallback: "that of `like`", doc: "what the driver keeps for itself"},
			{name: "context", kind: "size", fallback: "that of `like`", doc: "what one process with torch takes before vLLM allocates"},
		},
	}
}

func outputSpec() *blockSpec {
	return &blockSpec{
		name: "output", single: true,
		doc: "Where results go.",
		attrs: []attrSpec{
			{name: "dir", kind: "string", fallback: "`" + defaultOutputDir + "`", doc: "any folder; relative to the working directory"},
		},
	}
}

func sweepSpec() *blockSpec {
	return &blockSpec{
		name: "sweep", label: "name",
		doc: "A matrix and what executes it. The name holds letters, digits, `.`, `_` and `-`.",
		attrs: []attrSpec{
			{name: "description", kind: "string", doc: "for readers"},
			{name: "repeats", kind: "whole number", fallback: "1", doc: "runs per profile, 1 to 1000"},
			{name: "gpus", kind: "list of numbers", fallback: "the first ones, as many as `tensor_parallel_size` asks for", doc: "which GPUs runs may use"},
		},
		blocks: []*blockSpec{
			{name: "matrix", single: true, needed: true, free: "an axis: a list of strings, numbers, booleans or objects",
				doc: "Attributes only. Source order is run order; the last axis varies fastest. An axis named like a setting sets it; any other is a free name for expressions. The keys of an axis of objects each do the same."},
			{name: "exclude", free: "an axis: the value, or a list of values, to take away",
				doc:   "Takes points out of the matrix: those that match every attribute and `when`.",
				attrs: []attrSpec{{name: "when", kind: "expression", doc: "true for points to take away; sees `matrix` and `model`"}}},
			{name: "include", free: "an axis: its value, or a list of values, which multiply", doc: "Adds whole points after the excludes; names every axis."},
			{name: "pick", single: true, doc: "A seeded choice of the matrix after its excludes; included points stay.",
				attrs: []attrSpec{
					{name: "n", kind: "whole number", required: true, doc: "how many points"},
					{name: "seed", kind: "whole number", fallback: "0", doc: "same seed, same points, on every machine"},
				}},
			engineSpec(),
			{name: "env", single: true, free: "a variable of the child's environment", doc: "The child's environment, on top of vramsweep's own. The only place where sensitive variables may go."},
			{name: "sample", single: true, doc: "How the instruments are read.",
				attrs: []attrSpec{
					{name: "interval", kind: "duration", fallback: `"100ms"`, doc: "between two samples, 10 ms to 10 s"},
					{name: "all_gpus", kind: "bool", fallback: "false", doc: "record the other GPUs too; they never count"},
				}},
			limitsSpec(),
		},
	}
}

func engineSpec() *blockSpec {
	return &blockSpec{
		name: "engine", label: "kind", single: true,
		doc: "What executes the profiles: `\"vllm\"` (the default) or `\"simulator\"`. Evaluated at every point; sees `matrix`, `profile`, `model` and `sweep`.",
		attrs: []attrSpec{
			{name: "command", kind: "list of strings", fallback: "`vllm` on PATH", doc: "stands for `vllm`, with leading arguments"},
			{name: "benchmark", kind: "list of strings", fallback: "`vllm bench latency`", doc: "stands for `vllm bench latency` of versions without that verb"},
			{name: "python", kind: "list of strings", fallback: "found from the vllm command", doc: "vLLM's own Python, for session mode"},
			{name: "mode", kind: `"latency" or "session"`, fallback: `"latency"`, doc: "a process a profile, or one engine for all profiles that share its settings"},
			{name: "vllm_version", kind: "string", fallback: "the newest that estimates know", doc: "the version that estimates assume"},
			{name: "model_runner", kind: `"v1", "v2" or "auto"`, fallback: `"auto"`, doc: "the model runner that estimates assume"},
			{name: "defaults", kind: `"serve" or "bench"`, fallback: `"bench"`, doc: "`\"serve\"` pins the API server's token and sequence limits"},
			{name: "gpu", kind: "string", fallback: `"h100-80gb"`, doc: "simulator only: a GPU of the catalogue or of a gpu block"},
			{name: "seed", kind: "whole number", fallback: "0", doc: "simulator: same seed, same results; for vLLM its own flag"},
			{name: "noise", kind: "number", fallback: "0.01", doc: "simulator only: relative standard deviation, 0 to 1"},
			{name: "time_scale", kind: "number", fallback: "a run takes about a second", doc: "simulator only: simulated seconds a second of wall time"},
			{name: "plant", kind: "object", doc: "simulator only: a change for analysis to find again, as [simulator.md](simulator.md) says"},
		},
		free: "a setting that is no axis; every other name is vLLM's own flag (`max_lora_rank` is `--max-lora-rank`)",
	}
}

func limitsSpec() *blockSpec {
	return &blockSpec{
		name: "limits", single: true,
		doc: "Bounds of a run and of the sweep. `\"0s\"` is no bound.",
		attrs: []attrSpec{
			{name: "timeout", kind: "duration", fallback: `"1h"`, doc: "a whole attempt"},
			{name: "startup_timeout", kind: "duration", fallback: `"30m"`, doc: "until the engine is ready"},
			{name: "silence_timeout", kind: "duration", fallback: `"10m"`, doc: "no output and no GPU activity"},
			{name: "idle_timeout", kind: "duration", fallback: `"5m"`, doc: "how long a run waits for idle GPUs"},
			{name: "retries", kind: "whole number", fallback: "1", doc: "further attempts after a failure that can pass"},
			{name: "max_failures", kind: "whole number", fallback: "0: no bound", doc: "then the sweep ends"},
			{name: "skip", kind: "list of strings", fallback: "[]", doc: "`\"never_fits\"`: profiles that cannot fit; `\"dominated\"`: profiles that ask more than one that ran out of memory"},
			{name: "on_dirty_gpu", kind: `"wait", "skip" or "stop"`, fallback: `"wait"`, doc: "what to do while others hold GPU memory"},
		},
	}
}
