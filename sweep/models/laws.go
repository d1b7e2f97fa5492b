package models

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"sync"
)

//go:embed laws/*.json
var lawFiles embed.FS

// LawSchema names the layout of a laws file.
const LawSchema = "vramsweep-laws/1"

// A LawFile is what was measured of one vLLM on one kind of GPU and cannot be
// computed from an architecture: for each term of the arithmetic the formula that
// it follows and the formula's coefficients. docs/arithmetic.md has the formulas.
type LawFile struct {
	Schema string `json:"schema"`
	VLLM   string `json:"vllm_version"`
	// From is the oldest vLLM that behaves like this one, as far as sources say.
	From    string   `json:"from_version"`
	GPU     string   `json:"gpu"`  // as the driver names it
	Arch    string   `json:"arch"` // as the catalogue of GPUs names it
	Torch   string   `json:"torch_version,omitempty"`
	By      string   `json:"by"`
	Source  string   `json:"source"`            // what the coefficients were taken from
	RunList []string `json:"run_ids,omitempty"` // of the runs that they were fitted to
	Runs    int      `json:"runs"`
	Ranks   int64    `json:"ranks"` // the most that a run had
	// Synthetic says that a simulator made the runs: nothing real is planned by them.
	Synthetic bool `json:"synthetic,omitempty"`
	// Terms has a law for each term that was measured.
	Terms map[string]Law `json:"terms"`

	Where string `json:"-"` // the file, where a user has it; "": the package's own

	release, from          Release
	measured, extrapolated string // what an estimate says of its source
}

// A Law is one term of the arithmetic, as one vLLM on one GPU follows it.
type Law struct {
	Form         string                 `json:"form"`
	Coefficients map[string]Coefficient `json:"coefficients,omitempty"`
	// Elsewhere are the factors of the figure that hold it on another version or GPU.
	Elsewhere Range  `json:"elsewhere"`
	Attention string `json:"attention_backends,omitempty"`
	Runs      int    `json:"runs"` // that say something of the term
	Source    string `json:"source,omitempty"`
}

// A Coefficient lies between Low and High in at least nine runs of ten. Names
// that end in _bytes are in bytes; the others are factors.
type Coefficient struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// A Range is a pair of factors.
type Range struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Laws is a set of law files. It is never changed after it was made.
type Laws struct {
	files []*LawFile
	terms map[string][]found // by term: the files that have it
}

// ErrLaws says that a laws file cannot be used.
var ErrLaws = errors.New("unusable laws file")

// The terms of the arithmetic that have laws.
const (
	termContext       = "context"
	termNonTorch      = "non_torch"
	termActivations   = "activations"
	termState         = "state_layers"
	termHead          = "head"
	termSamplerV1     = "sampler_v1"
	termSamplerV2     = "sampler_v2"
	termGraphs        = "cuda_graphs"
	termGraphEstimate = "graph_estimate"
	termGrowth        = "growth"
)

// lawForms are the formulas by name, and the coefficients that each takes. The
// functions that compute them are named after the terms.
func lawForms() map[string][]string {
	return map[string][]string{
		"per_rank": {"one_bytes", "nccl_bytes", "peer_bytes"},
		"by_ranks": {"one_bytes", "per_logit_bytes", "odd_vocabulary_bytes", "tensor_parallel_bytes", "further_rank_bytes",
			"pipeline_bytes"},
		"larger_moment": {"base_bytes", "per_logit_bytes", "cublas_workspaces", "tuner_buffers", "forward_hidden",
			"forward_attention", "forward_width", "plain_width", "plain_unfused", "eager_hidden", "eager_extra_hidden",
			"eager_width", "eager_plain_width", "experts_hidden", "experts_slack", "latent_context", "four_norms", "spread"},
		"in_projection": {"hidden", "projection", "spread"},
		"head_copy":     {"head", "hidden"},
		"logits":        {"logit_bytes", "rows"},
		"logit_copies":  {"copies", "softcap_copies", "base_bytes"},
		"first_and_further": {"first_piecewise_bytes", "first_full_v1_bytes", "first_full_v2_bytes", "piece",
			"piecewise_layer_bytes", "full_layer_bytes", "cublas_workspaces", "splits", "splits_cut",
			"splits_sinks", "first_spread", "further_spread"},
		"full_graphs_width": {"base_bytes", "width_bytes"},
		"in_use":            {"base_bytes", "token_bytes", "state_bytes"},
	}
}

// ParseLaws reads law files. It fails with ErrLaws where a file is not one.
func ParseLaws(files ...[]byte) (*Laws, error) {
	var read []*LawFile
	for _, data := range files {
		f := &LawFile{}
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(f); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrLaws, err)
		}
		if err := f.check(); err != nil {
			return nil, fmt.Errorf("%w of vLLM %q on %q: %w", ErrLaws, f.VLLM, f.GPU, err)
		}
		read = append(read, f)
	}
	return lawsOf(read), nil
}

// ShippedLaws are those that the package ships.
func ShippedLaws() *Laws { return builtinLaws() }

// With are the laws with a file laid over them: one of the same version and GPU gives way
// to it. It fails with ErrLaws where the file is not one.
func (l *Laws) With(f *LawFile) (*Laws, error) {
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("%w of vLLM %q on %q: %w", ErrLaws, f.VLLM, f.GPU, err)
	}
	return lawsOf(append(slices.Clone(l.files), f)), nil
}

// Files are the files of the set, the last one laid over those before it.
func (l *Laws) Files() []*LawFile { return l.files }

// Marshal is the text of a laws file.
func (f *LawFile) Marshal() ([]byte, error) {
	data, err := json.MarshalIndent(f, "", " ")
	if err != nil {
		return nil, fmt.Errorf("write the laws of vLLM %s on %s: %w", f.VLLM, f.GPU, err)
	}
	return append(data, '\n'), nil
}

// lawsOf makes a set of checked files.
func lawsOf(files []*LawFile) *Laws {
	set := &Laws{files: files, terms: map[string][]found{}}
	for _, f := range files {
		for term, law := range f.Terms {
			set.terms[term] = append(set.terms[term], found{Law: &law, file: f})
		}
	}
	return set
}

// check reads the versions, and compares the coefficients with what the formulas take.
func (f *LawFile) check() error {
	if f.Schema != LawSchema {
		return fmt.Errorf("schema is %q; expected %q", f.Schema, LawSchema)
	}
	var ok, from bool
	f.release, ok = ParseRelease(f.VLLM)
	f.from, from = ParseRelease(f.From)
	if !ok || !from || f.from > f.release {
		return fmt.Errorf("vllm_version %q, from_version %q; expected two like \"0.26.0\", the second not the newer one",
			f.VLLM, f.From)
	}
	f.measured = fmt.Sprintf("measured on %s, %s, %d runs", f.VLLM, f.GPU, f.Runs)
	f.extrapolated = fmt.Sprintf("extrapolated from %s, %s", f.VLLM, f.GPU)
	if f.Where != "" {
		f.measured, f.extrapolated = f.measured+" ("+f.Where+")", f.extrapolated+" ("+f.Where+")"
	}
	forms := lawForms()
	for term, law := range f.Terms {
		names, ok := forms[law.Form]
		if !ok {
			return fmt.Errorf("term %s: no formula has the name %q", term, law.Form)
		}
		if err := law.check(names); err != nil {
			return fmt.Errorf("term %s: %w", term, err)
		}
	}
	return nil
}

// check compares the coefficients with the names that the formula takes.
func (law *Law) check(names []string) error {
	for name, c := range law.Coefficients {
		if !slices.Contains(names, name) {
			return fmt.Errorf("formula %s takes no %q; expected %v", law.Form, name, names)
		}
		if !(c.Low <= c.Value && c.Value <= c.High) {
			return fmt.Errorf("%s is %v; expected low <= value <= high", name, c)
		}
	}
	if e := law.Elsewhere; !(0 <= e.Low && e.Low <= 1 && 1 <= e.High) {
		return fmt.Errorf("elsewhere is %v; expected 0 <= low <= 1 <= high", e)
	}
	return nil
}

// builtinLaws are the files that the package ships; a test reads each of them.
//
//nolint:gochecknoglobals // parsed once, never written to
var builtinLaws = sync.OnceValue(func() *Laws {
	set, err := shippedLaws()
	if err != nil {
		return &Laws{}
	}
	return set
})

func shippedLaws() (*Laws, error) {
	names, err := fs.Glob(lawFiles, "laws/*.json")
	if err != nil {
		return nil, err
	}
	var files [][]byte
	for _, name := range names {
		data, err := lawFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		files = append(files, data)
	}
	return ParseLaws(files...)
}

// found is a law with the file that it stands in.
type found struct {
	*Law
	file     *LawFile
	measured bool // on this version and this kind of GPU
}

// find is the law of a term that is nearest to a version and a GPU: of the
// files with the term that are for versions not newer than v the newest, and of those for the
// same version the one of the same product, else architecture. Where all are
// newer it is the oldest.
func (l *Laws) find(term string, v Release, g GPU) (found, bool) {
	var best found
	score := func(f *LawFile) int {
		n := int(f.from)
		if f.from > v {
			n = -n
		}
		n *= 4
		switch {
		case f.GPU == g.Product:
			n += 2
		case f.Arch == g.Arch:
			n++
		}
		return n
	}
	for _, f := range l.terms[term] {
		if best.file == nil || score(f.file) >= score(best.file) {
			best = f
		}
	}
	if best.file == nil {
		return best, false
	}
	best.measured = best.file.release/1000 == v/1000 && best.file.GPU == g.Product
	return best, true
}

// c is a coefficient; one that the law does not have is 0.
func (f found) c(name string) Coefficient {
	if f.Law == nil {
		return Coefficient{}
	}
	return f.Coefficients[name]
}

// n is a coefficient's value times units.
func (f found) n(name string, units int64) int64 {
	return int64(math.Round(f.c(name).Value * float64(units)))
}

// says tells where the law is from.
func (f found) says() string {
	if f.measured {
		return f.file.measured
	}
	return f.file.extrapolated
}

// sum adds coefficients times units, value and interval.
type sum struct{ value, low, high float64 }

func (s *sum) add(c Coefficient, units int64) {
	n := float64(units)
	s.value += n * c.Value
	s.low += n * c.Low
	s.high += n * c.High
}

// figure is a term's figure: its interval is as wide as the law says, and where
// the law is of another version or GPU as wide as its Elsewhere.
func (f found) figure(value, low, high int64, source string) Figure {
	if !f.measured {
		low = min(low, int64(float64(value)*f.Elsewhere.Low))
		high = max(high, int64(float64(value)*f.Elsewhere.High))
	}
	return figure(value, low, high, source)
}

// figureOf is the figure of a sum.
func (f found) figureOf(s sum, source string) Figure {
	return f.figure(int64(s.value), int64(s.low), int64(s.high), source)
}

// A LawSource is where the laws of some terms are from.
type LawSource struct {
	// From is "measured on 0.33.0, NVIDIA H200, 23 runs" or "extrapolated from 0.26.0, NVIDIA H100 80GB HBM3".
	From     string   `json:"from"`
	Measured bool     `json:"measured"`
	Terms    []string `json:"terms"`
}

// law finds a term's law and notes its source in the estimate.
func (s *setup) law(e *Estimate, term string) (found, bool) {
	f, ok := s.laws.find(term, s.v, s.g)
	if ok && s.tp*s.pp > f.file.Ranks {
		f.measured = false
	}
	if ok && e != nil {
		e.note(term, f)
	}
	return f, ok
}

func (e *Estimate) note(term string, f found) {
	says := f.says()
	for i := range e.Laws {
		if l := &e.Laws[i]; l.From == says {
			if !slices.Contains(l.Terms, term) {
				l.Terms = append(l.Terms, term)
			}
			return
		}
	}
	e.Laws = append(e.Laws, LawSource{From: says, Measured: f.measured, Terms: append(make([]string, 0, 8), term)})
}
