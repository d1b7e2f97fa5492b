package sweep

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/vramsweep/vramsweep/sweep/models"
)

// A modelRef is what the name of a model stands for.
type modelRef struct {
	name string               // as the file names it
	hfID string               // what vLLM is given
	arch *models.Architecture // nil: a Hugging Face id that nothing is known of
	id   string               // what ids are computed over: never a path
	obj  *cty.Value
}

// object is the architecture as expressions see it: what is zero is null,
// because the architecture has no such part or nobody knows.
func (m *modelRef) object() cty.Value {
	if m.obj == nil {
		fields := map[string]any{}
		if m.arch != nil {
			fields = architectureFields(m.arch)
		}
		vals := map[string]cty.Value{}
		for _, name := range architectureNames() {
			vals[name] = fromGo(fields[name])
		}
		obj := cty.ObjectVal(vals)
		m.obj = &obj
	}
	return *m.obj
}

// architectureTypes are the fields of an architecture by their JSON names. Reading
// them from the type keeps the language in step with it.
func architectureTypes() map[string]reflect.Type {
	t := reflect.TypeFor[models.Architecture]()
	types := map[string]reflect.Type{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name != "" && name != "-" {
			types[name] = t.Field(i).Type
		}
	}
	return types
}

func architectureNames() []string { return sortedKeys(architectureTypes()) }

// architectureFields is an architecture as Go values by JSON name; zero is nil.
func architectureFields(a *models.Architecture) map[string]any {
	b, err := json.Marshal(a)
	if err != nil {
		return nil
	}
	dec := json.NewDecoder(strings.NewReader(string(b)))
	dec.UseNumber()
	fields := map[string]any{}
	if dec.Decode(&fields) != nil {
		return nil
	}
	for k, v := range fields {
		if n, ok := v.(json.Number); v == "" || ok && n.String() == "0" {
			delete(fields, k)
		}
	}
	return fields
}

// hfID is the form of a Hugging Face id: owner/name.
var hfID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$`)

// resolveModel finds what a name stands for: a model block, a folder that is
// written as a path, the catalogue, any other folder with config.json, a
// Hugging Face id. Anything else is an error.
func (l *loader) resolveModel(name string) (*modelRef, error) {
	if ref, ok := l.refs[name]; ok {
		return ref.ref, ref.err
	}
	if b, ok := l.modelBlocks[name]; ok {
		return l.evalModel(b)
	}
	ref, err := l.lookUpModel(name)
	l.refs[name] = modelResult{ref, err}
	return ref, err
}

type modelResult struct {
	ref *modelRef
	err error
}

var errUnknownModel = errors.New("unknown model")

func (l *loader) lookUpModel(name string) (*modelRef, error) {
	if isPath(name) {
		return l.folderModel(name)
	}
	if a, ok := l.catalogue.Lookup(name); ok {
		id := a.HFModelID
		if strings.EqualFold(name, a.ID) {
			id = a.ID // the Hub does not tell upper from lower case, nor does the id
		}
		return &modelRef{name: name, hfID: a.HFModelID, arch: a, id: id}, nil
	}
	if _, err := os.Stat(filepath.Join(resolve(l.in.WorkDir, name), "config.json")); err == nil {
		return l.folderModel(name)
	}
	if hfID.MatchString(name) {
		return &modelRef{name: name, hfID: name, id: name}, nil
	}
	hint := didYouMean(name, append(sortedKeys(l.modelBlocks), l.catalogue.Names()...))
	return nil, fmt.Errorf("%w: no model called %q is declared or in the catalogue, it is no folder with config.json, "+
		"and no Hugging Face id (owner/name).%s", errUnknownModel, name, hint)
}

// isPath says whether a name is written as a path.
func isPath(name string) bool {
	return filepath.IsAbs(name) || name == "." || name == ".." ||
		strings.HasPrefix(name, "./") || strings.HasPrefix(name, "../") || strings.HasSuffix(name, "/")
}

// folderModel reads a folder with config.json. Its id is over the bytes of that
// file: the same on every machine, wherever the folder lies.
func (l *loader) folderModel(name string) (*modelRef, error) {
	dir := resolve(l.in.WorkDir, filepath.Clean(name))
	b, err := readSource("", filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, fmt.Errorf("the folder %q has no config.json that can be read: %s", name, plainError(err))
	}
	a, err := models.FromDir(dir)
	if err != nil {
		// models names the folder by its path, the file by what the user wrote
		return nil, fmt.Errorf("the folder %q: %s", name, strings.ReplaceAll(err.Error(), dir, filepath.Clean(name)))
	}
	sum := sha256.Sum256(b)
	return &modelRef{name: name, hfID: dir, arch: a, id: "config.json:" + hex.EncodeToString(sum[:])}, nil
}

// A modelBlock is a model block of the file.
type modelBlock struct {
	block *block
	state visitState
	ref   *modelRef
	err   error
}

// declareModels notes all model blocks; they are evaluated when first needed.
func (l *loader) declareModels() {
	l.modelBlocks = map[string]*modelBlock{}
	for _, b := range l.blocksOf("model") {
		if b.label == "" || isPath(b.label) || strings.ContainsAny(b.label, "\\\x00\n") || len(b.label) > 128 {
			l.diags.errorAt(codeName, b.labelRng, "%s is no name for a model.", show(b.label))
			continue
		}
		l.modelBlocks[b.label] = &modelBlock{block: b, err: errBadModel}
	}
}

var errBadModel = errors.New("its model block is at fault")

// evalModel evaluates a model block and adds it to the catalogue.
func (l *loader) evalModel(m *modelBlock) (*modelRef, error) {
	ok := l.visit(&m.state, "model."+m.block.label, m.block.labelRng, func() {
		before := l.diags.errors
		ref, err := l.readModel(m.block)
		if err != nil && !errors.Is(err, errBadModel) {
			l.modelFault(m.block.labelRng, err)
		}
		if l.diags.errors == before && err == nil {
			m.ref, m.err = ref, nil
		}
	})
	if !ok {
		return nil, errBadModel
	}
	return m.ref, m.err
}

func (l *loader) readModel(b *block) (*modelRef, error) {
	sc := plainScope("a model block")
	like := l.stringAttr(b.body, "like", "", sc)
	id := l.stringAttr(b.body, "hf_model_id", "", sc)
	ref := &modelRef{name: b.label, hfID: id}
	base, err := l.modelBase(b, ref, like)
	if err != nil {
		return nil, err
	}
	fields := map[string]any{}
	known := architectureNames()
	before := l.diags.errors
	for _, a := range b.body.attrs {
		if b.body.spec.attr(a.name) != nil {
			continue
		}
		if !slices.Contains(known, a.name) || a.name == "id" || a.name == "source" {
			l.diags.errorAt(codeUnknownArg, a.nameRng,
				"An architecture has no field %q.%s", a.name, suggestOrList(a.name, known))
			continue
		}
		if v, ok := l.value(a.expr, sc); ok {
			g, _ := toGo(v)
			fields[a.name] = g
			if err := checkField(a.name, g); err != nil {
				l.diags.errorAt(codeValue, a.expr.Range(), "%s.", err)
			}
		}
	}
	if l.diags.errors > before {
		return nil, errBadModel
	}
	if base == nil && len(fields) == 0 {
		ref.id = b.label + "=" + ref.hfID
		return ref, nil
	}
	arch, err := overlay(base, fields)
	if err != nil {
		return nil, err
	}
	arch.ID, arch.HFModelID, arch.Source = b.label, ref.hfID, "model block"
	if err := arch.Check(); err != nil {
		l.diags.errorAt(codeValue, b.labelRng, "The model %q cannot be: %s", b.label, sentence(err.Error()))
		return nil, errBadModel
	}
	ref.arch = l.addModel(arch)
	if ref.id == "" {
		ref.id = b.label + "=" + ref.hfID
	}
	return ref, nil
}

// addModel lays an architecture over the catalogue, which completes it.
func (l *loader) addModel(a *models.Architecture) *models.Architecture {
	l.catalogue = l.catalogue.With(a)
	if done, ok := l.catalogue.Lookup(a.ID); ok {
		return done
	}
	return a
}

// overlay is a copy of base (nil: an empty one) with fields laid over it. What
// follows from a field that changed is computed again: the parameter count, and
// the head dimension from the hidden size and the heads.
func overlay(base *models.Architecture, fields map[string]any) (*models.Architecture, error) {
	arch, mha := &models.Architecture{}, false
	for _, part := range []any{base, fields} {
		mha = arch.NumKVHeads == arch.NumHeads // of base, before fields
		b, err := json.Marshal(part)
		if err == nil {
			err = json.Unmarshal(b, arch)
		}
		if err != nil {
			return nil, fmt.Errorf("lay fields over the architecture: %w", err)
		}
	}
	has := func(name string) bool { return fields[name] != nil }
	if len(fields) > 0 {
		arch.Published = nil
		if !has("params") {
			arch.Params = 0
		}
	}
	if (has("num_heads") || has("hidden_size")) && !has("head_dim") && arch.NumHeads > 0 {
		arch.HeadDim = arch.HiddenSize / arch.NumHeads
	}
	if mha && has("num_heads") && !has("num_kv_heads") {
		arch.NumKVHeads = arch.NumHeads
	}
	return arch, nil
}

// modelBase finds the architecture that a block's fields are laid over, and
// what vLLM is given.
func (l *loader) modelBase(b *block, ref *modelRef, like string) (*models.Architecture, error) {
	if like != "" {
		a, ok := l.catalogue.Lookup(like)
		if !ok {
			rng := b.body.attr("like").expr.Range()
			l.diags.errorAt(codeUnknownModel, rng,
				"The catalogue has no model %q.%s", like, didYouMean(like, l.catalogue.Names()))
			return nil, errBadModel
		}
		if ref.hfID == "" {
			ref.hfID = a.HFModelID
		}
		return a, nil
	}
	a, found := l.catalogue.Lookup(b.label)
	if ref.hfID == "" {
		ref.hfID = b.label
		if found {
			ref.hfID = a.HFModelID
		}
	}
	if found {
		return a, nil
	}
	other, err := l.lookUpModel(ref.hfID)
	if err != nil && b.body.attr("hf_model_id") == nil {
		l.diags.errorAt(codeMissingArg, b.labelRng, "The model block %q has no hf_model_id, and the catalogue has no model of "+
			"that name.%s Add hf_model_id = \"owner/name\", or the path of a folder with config.json.", b.label,
			didYouMean(b.label, l.catalogue.Names()))
		return nil, errBadModel
	}
	if err != nil {
		rng := b.labelRng
		if at := b.body.attr("hf_model_id"); at != nil {
			rng = at.expr.Range()
		}
		l.modelFault(rng, err)
		return nil, errBadModel
	}
	ref.hfID = other.hfID
	if strings.HasPrefix(other.id, "config.json:") {
		ref.id = b.label + "=" + other.id
	}
	return other.arch, nil
}

// checkField says whether a field of an architecture takes a value of this
// kind.
func checkField(name string, v any) error {
	t := architectureTypes()[name]
	b, err := json.Marshal(v)
	if err == nil && v != nil {
		err = json.Unmarshal(b, reflect.New(t).Interface())
	}
	if n, isInt := v.(int64); err == nil && v != nil && (!isInt || n >= 0) {
		return nil
	}
	return fmt.Errorf("%s needs %s; this is %s", name, fieldKind(t), describe(v))
}

func fieldKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int64, reflect.Int:
		return "a whole number, 0 or more"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	}
	return "a value as in models.json"
}

// modelFault reports why a name stands for no model.
func (l *loader) modelFault(rng hcl.Range, err error) {
	switch {
	case errors.Is(err, errBadModel): // reported where the block stands
		l.diags.errors++
	case errors.Is(err, errUnknownModel):
		l.diags.errorAt(codeUnknownModel, rng, "%s", capital(strings.TrimPrefix(err.Error(), errUnknownModel.Error()+": ")))
	default:
		l.diags.errorAt(codeModelFolder, rng, "%s", sentence(capital(err.Error())))
	}
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// gpuNames lists the GPUs of the catalogue.
func gpuNames() []string {
	var names []string
	for _, g := range models.GPUs() {
		names = append(names, g.Name)
	}
	return names
}
