package sweep

import (
	"errors"
	"os"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/vramsweep/vramsweep/sweep/models"
)

// Inputs are what a configuration takes from outside.
type Inputs struct {
	// Values of variables, in order of rising precedence.
	Env      []string // VRAMSWEEP_VAR_name=value; other names are ignored
	VarFiles []string // files of assignments
	Vars     []string // name=value

	Only   []string // sweeps to keep, by name; nil: all
	Filter string   // keeps the profiles for which this expression is true: `matrix.batch_size > 8`

	// CheckPlant says what the simulator cannot do with the plant of an engine
	// "simulator"; nil: nobody is asked. It is called once for each plant.
	CheckPlant func(plant map[string]any) error

	// WorkDir is what relative paths are relative to: that of the
	// configuration, of variable files and of model folders. "": the
	// process's own.
	WorkDir string
	Models  *models.Catalogue // nil: the one that is built in
}

// Load reads the configuration at path, a file or a folder, and evaluates it
// whole. If the configuration or its inputs are at fault, the error is an
// *Error and there is no plan: never a part of one. Any other error means that
// vramsweep itself is at fault.
//
// The plan's profiles share memory with one another; it must not be written to.
func Load(path string, in Inputs) (*Plan, error) {
	catalogue, err := orBuiltin(in.Models)
	if err != nil {
		return nil, err
	}
	return loadWith(path, in, catalogue)
}

// orBuiltin is a catalogue, else the one that is built in.
func orBuiltin(c *models.Catalogue) (*models.Catalogue, error) {
	if c != nil {
		return c, nil
	}
	return models.Builtin()
}

func loadWith(path string, in Inputs, catalogue *models.Catalogue) (*Plan, error) {
	l := newLoader(in, catalogue)
	plan := l.load(path)
	warnings, err := l.diags.result()
	if err != nil {
		return nil, err
	}
	plan.Warnings = warnings
	return plan, nil
}

// A loader turns one configuration into a plan.
type loader struct {
	in        Inputs
	diags     *diags
	guard     *budget
	root      *body
	files     []string
	catalogue *models.Catalogue
	funcs     map[string]function.Function
	settings  map[string]*setting
	own       []ownAttr
	flags     map[string]bool

	vars        map[string]*variable
	varObj      cty.Value
	locals      map[string]*local
	localOrder  []string
	modelBlocks map[string]*modelBlock
	refs        map[string]modelResult
	gpuBlocks   []string // labels
	profiles    int      // of all sweeps
	path        []string // locals and models that are being evaluated
}

func newLoader(in Inputs, catalogue *models.Catalogue) *loader {
	l := &loader{
		in: in, diags: newDiags(sources{}), guard: &budget{}, catalogue: catalogue,
		settings: map[string]*setting{}, flags: map[string]bool{},
		vars: map[string]*variable{}, varObj: cty.EmptyObjectVal, locals: map[string]*local{},
		modelBlocks: map[string]*modelBlock{}, refs: map[string]modelResult{},
	}
	for _, s := range settings() {
		l.settings[s.name] = s
	}
	for _, f := range engineFlags() {
		l.flags[f] = true
	}
	l.funcs, l.own = l.functions(), l.ownAttrs()
	return l
}

func (l *loader) load(path string) *Plan {
	if !l.parse(path) {
		return nil
	}
	l.variables()
	l.declareLocals()
	l.declareModels()
	l.evalLocals()
	for _, name := range sortedKeys(l.modelBlocks) {
		if _, err := l.evalModel(l.modelBlocks[name]); errors.Is(err, errBadModel) && !l.diags.failed() {
			l.diags.errors++
		}
	}
	plan := &Plan{Files: l.files, OutputDir: l.output(), GPUs: l.gpus(), Sweeps: []*Sweep{}}
	for _, b := range l.blocksOf("sweep") {
		plan.Sweeps = append(plan.Sweeps, l.sweep(b))
	}
	if len(plan.Sweeps) == 0 && !l.diags.failed() {
		l.diags.errorAt(codeNoSweeps, hcl.Range{}, "%s declares no sweep, so there is nothing to run.", path)
	}
	plan.Variables, plan.Models = l.variableValues(), l.catalogue
	for _, s := range plan.Sweeps {
		s.secrets = l.sensitiveValues()
	}
	if !l.diags.failed() {
		l.choose(plan)
	}
	return plan
}

// blocksOf lists the blocks of one type and reports those whose label another has.
func (l *loader) blocksOf(name string) []*block {
	var list []*block
	seen := map[string]*block{}
	for _, b := range l.root.blocks {
		first := seen[b.label]
		switch {
		case b.name != name:
		case first != nil:
			l.diags.errorAt(codeDuplicate, b.rng, "A %s called %q is already declared at %s", name, b.label,
				earlier(first.rng, b.rng))
		default:
			seen[b.label] = b
			list = append(list, b)
		}
	}
	return list
}

// parse reads all files of the configuration into one body.
func (l *loader) parse(path string) bool {
	files, err := configFiles(path, l.in.WorkDir)
	switch {
	case errors.Is(err, errNoFiles):
		l.diags.errorAt(codeNoFiles, hcl.Range{}, "%s is a folder, and %s.", path, err)
		return false
	case err != nil:
		hint := ""
		if errors.Is(err, os.ErrNotExist) {
			hint = " Check the spelling and the working directory."
		}
		l.diags.errorAt(codeUnreadable, hcl.Range{}, "%s: %s.%s", path, plainError(err), hint)
		return false
	}
	l.files = files
	l.root = &body{spec: schema()}
	r := &reader{diags: l.diags, guard: l.guard}
	for _, name := range files {
		src, err := readSource(l.in.WorkDir, name)
		if err != nil {
			l.diags.errorAt(codeUnreadable, hcl.Range{}, "%s: %s.", name, plainError(err))
			continue
		}
		l.diags.sources[name] = src
		if b := r.parse(name, src, l.root.spec); b != nil {
			l.root.attrs = append(l.root.attrs, b.attrs...)
			l.root.blocks = append(l.root.blocks, b.blocks...)
		}
	}
	r.checkRepeated(l.root)
	return !l.syntaxFailed()
}

// syntaxFailed says whether a file could not be read: then nothing that rests
// on names can be said, for they may be declared there.
func (l *loader) syntaxFailed() bool {
	for _, d := range l.diags.list {
		switch d.Code {
		case codeSyntax.id(), codeUnreadable.id(), codeTooLarge.id():
			return true
		}
	}
	return false
}
