package sweep

import "slices"

// attrSpec is one attribute of a block. docs/language.md describes all of them;
// a test holds its tables against this schema.
type attrSpec struct {
	name string
	need string // what it is, of one that must stand
}

// blockSpec describes one type of block.
type blockSpec struct {
	name   string
	label  string // what the label is called; "": no label
	sample string // a label, for messages
	attrs  []attrSpec
	blocks []*blockSpec
	free   bool // other attributes may stand: axes, flags, names
	single bool // at most one in its parent
	needed bool // at least one in its parent
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

// where names the block for a sentence.
func (s *blockSpec) where() string {
	if s.name == "" {
		return "a sweep file"
	}
	return article(s.name) + " block"
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

// optional are attributes that may be absent.
func optional(names ...string) []attrSpec {
	var out []attrSpec
	for _, n := range names {
		out = append(out, attrSpec{name: n})
	}
	return out
}

// schema is the whole language: what may stand where.
func schema() *blockSpec {
	return &blockSpec{blocks: []*blockSpec{
		{
			name: "variable", label: "name", attrs: optional("type", "default", "description", "sensitive"),
			blocks: []*blockSpec{{name: "validation", attrs: []attrSpec{
				{"condition", "true where the value is good; sees `var`"}, {"error_message", "what to say where it is not"},
			}}},
		},
		{name: "locals", free: true},
		{name: "model", label: "name", attrs: optional("hf_model_id", "like"), free: true},
		sweepSpec(),
		{name: "gpu", label: "name", attrs: optional("like", "total_memory", "reserve", "context")},
		{name: "output", single: true, attrs: optional("dir")},
	}}
}

func sweepSpec() *blockSpec {
	return &blockSpec{
		name: "sweep", label: "name", attrs: optional("description", "repeats", "gpus", "order"),
		blocks: []*blockSpec{
			{name: "matrix", single: true, needed: true, free: true},
			{name: "exclude", attrs: optional("when"), free: true},
			{name: "include", free: true},
			{name: "pick", single: true, attrs: append([]attrSpec{{"n", "how many points"}}, optional("seed")...)},
			{
				name: "engine", label: "kind", sample: "vllm", single: true, free: true,
				attrs: optional("command", "benchmark", "python", "mode", "start", "vllm_version", "model_runner", "defaults",
					"gpu", "seed", "noise", "time_scale", "plant"),
			},
			{name: "labels", single: true, free: true},
			{name: "env", single: true, free: true},
			{name: "lanes", single: true, attrs: optional("count", "latency")},
			{name: "sample", single: true, attrs: optional("interval", "all_gpus")},
			{
				name: "limits", single: true,
				attrs: optional("timeout", "startup_timeout", "silence_timeout", "idle_timeout", "retries", "max_failures",
					"same_failure", "skip", "on_dirty_gpu"),
			},
		},
	}
}
