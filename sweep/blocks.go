package sweep

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// defaultOutputDir is where results go if no output block says so.
const defaultOutputDir = "results"

// attrOf evaluates and converts an attribute of a block; fallback where it does
// not stand there or is at fault.
func attrOf[T any](l *loader, b *body, name string, fallback T, sc *scope, conv func(string, any) (T, *misfit)) T {
	a := b.attr(name)
	if a == nil {
		return fallback
	}
	val, ok := l.value(a.expr, sc)
	if !ok {
		return fallback
	}
	g, ok := toGo(val)
	if !ok || g == nil {
		l.diags.errorAt(codeValue, a.expr.Range(), "%s has no value here: it is null. Leave the line out instead.", name)
		return fallback
	}
	v, f := conv(name, g)
	if f != nil {
		l.diags.errorAt(f.code, a.expr.Range(), "%s", f.detail)
		return fallback
	}
	return v
}

func (l *loader) stringAttr(b *body, name, fallback string, sc *scope) string {
	return attrOf(l, b, name, fallback, sc, asText)
}

func (l *loader) boolAttr(b *body, name string, fallback bool, sc *scope) bool {
	return attrOf(l, b, name, fallback, sc, asBool)
}

func asBool(name string, v any) (bool, *misfit) {
	x, ok := v.(bool)
	if !ok {
		hint := "."
		if v == "true" || v == "false" {
			hint = ". Leave the quotes out."
		}
		return false, misfitf(codeValue, name, " is true or false; this is ", describe(v), hint)
	}
	return x, nil
}

func (l *loader) intAttr(b *body, name string, fallback, low, high int64, sc *scope) int64 {
	return attrOf(l, b, name, fallback, sc, func(name string, v any) (int64, *misfit) {
		return asWhole(name, v, low, high)
	})
}

func asText(name string, v any) (string, *misfit) {
	s, ok := v.(string)
	if !ok || strings.ContainsRune(s, 0) {
		return "", misfitf(codeValue, name, " is a string; this is ", describe(v), ".")
	}
	return s, nil
}

// oneOf takes one of a few strings.
func oneOf(choices ...string) func(string, any) (string, *misfit) {
	return func(name string, v any) (string, *misfit) {
		s, f := asText(name, v)
		if f != nil || slices.Contains(choices, s) {
			return s, f
		}
		quoted := make([]string, len(choices))
		for i, c := range choices {
			quoted[i] = show(c)
		}
		return "", misfitf(codeChoice,
			name, " is one of ", strings.Join(quoted, ", "), "; this is ", show(s), ".", didYouMean(s, choices))
	}
}

func asDuration(name string, v any) (time.Duration, *misfit) {
	switch x := v.(type) {
	case string:
		d, err := ParseDuration(x)
		switch {
		case errors.Is(err, errNoUnit):
			return 0, misfitf(codeUnit, fmt.Sprintf("A duration needs a unit, as in %q or \"500ms\".", strings.TrimSpace(x)+"s"))
		case err != nil:
			return 0, misfitf(codeValue, err.Error(),
				`: a duration is a number with a unit, as in "30s", "500ms", "1h30m" or "2d".`)
		}
		return d, nil
	case int64, float64:
		return 0, misfitf(codeUnit, `A duration is a string with a unit, as in "`, show(x), `s" or "500ms".`)
	}
	return 0, misfitf(codeValue, name, ` is a duration, as in "30s"; this is `, describe(v), ".")
}

func asSize(name string, v any) (*int64, *misfit) {
	switch x := v.(type) {
	case string:
		n, err := ParseSize(x)
		switch {
		case errors.Is(err, errNoUnit):
			return nil, misfitf(codeUnit, fmt.Sprintf("A size needs a unit, as in %q.", strings.TrimSpace(x)+"GiB"))
		case err != nil:
			return nil, misfitf(codeValue, err.Error(), ".")
		}
		return &n, nil
	case int64, float64:
		return nil, misfitf(codeUnit, `A size is a string with a unit, as in "`, show(x), `GiB".`)
	}
	return nil, misfitf(codeValue, name, ` is a size, as in "80GiB"; this is `, describe(v), ".")
}

// output reads the output block.
func (l *loader) output() string {
	b := l.root.block("output") // a second one was reported
	if b == nil {
		return defaultOutputDir
	}
	dir := l.stringAttr(b.body, "dir", defaultOutputDir, plainScope("the output block"))
	if strings.TrimSpace(dir) == "" {
		l.diags.errorAt(codeValue, b.body.attr("dir").expr.Range(),
			"dir is the folder for results; this is empty. The working directory is \".\".")
	}
	return dir
}

// gpus reads the gpu blocks.
func (l *loader) gpus() []GPU {
	out := []GPU{}
	sc := plainScope("a gpu block")
	for _, b := range l.blocksOf("gpu") {
		if !isName(b.label) {
			l.diags.errorAt(codeName, b.labelRng, "%s", nameRule("GPU", b.label))
		}
		size := func(name string) *int64 { return attrOf(l, b.body, name, nil, sc, asSize) }
		g := GPU{
			Name: b.label, Like: l.stringAttr(b.body, "like", "", sc),
			TotalMemory: size("total_memory"), Reserve: size("reserve"), Context: size("context"),
		}
		if g.Like != "" {
			l.checkGPUName(g.Like, b.body.attr("like").expr.Range())
		} else if g.TotalMemory == nil && b.body.attr("like") == nil && b.body.attr("total_memory") == nil {
			l.diags.errorAt(codeMissingArg, b.rng,
				"A gpu block needs \"like\", the GPU of the catalogue that it resembles, or \"total_memory\".")
		}
		out = append(out, g)
		l.gpuBlocks = append(l.gpuBlocks, g.Name)
	}
	return out
}

func (l *loader) checkGPUName(name string, rng hcl.Range) {
	known := gpuNames()
	if len(known) > 0 && !slices.Contains(known, name) {
		l.diags.errorAt(codeUnknownGPU, rng, "The catalogue has no GPU %q.%s", name, suggestOrList(name, known))
	}
}

func nameRule(what, name string) string {
	return "The name of a " + what + ` has letters, digits, ".", "_" and "-", starts with a letter or digit ` +
		"and has at most 64 characters; this is " + show(name) + ". It becomes part of the names of files."
}

func defaultSample() Sample { return Sample{Interval: 100 * time.Millisecond} }

func defaultLimits() Limits {
	return Limits{
		Timeout: time.Hour, StartupTimeout: 30 * time.Minute, SilenceTimeout: 10 * time.Minute,
		IdleTimeout: 5 * time.Minute, Retries: 1, SameFailure: 3, OnDirtyGPU: "wait",
	}
}

// Bounds of the interval of samples.
const minInterval, maxInterval = 10 * time.Millisecond, 10 * time.Second

func defaultLanes() Lanes { return Lanes{Count: 1, Latency: "alone"} }

func (l *loader) lanes(b *body, sc *scope) Lanes {
	lanes := defaultLanes()
	lanes.Count = attrOf(l, b, "count", lanes.Count, sc, func(name string, v any) (int, *misfit) {
		if v == "auto" {
			return LanesAuto, nil
		}
		n, f := asWhole(name, v, 1, MaxLanes)
		if f != nil {
			f.detail += ` It may be "auto" as well: one lane a GPU.`
		}
		return int(n), f
	})
	lanes.Latency = attrOf(l, b, "latency", lanes.Latency, sc, oneOf("alone", "shared"))
	return lanes
}

func (l *loader) sample(b *body, sc *scope) Sample {
	s := defaultSample()
	s.Interval = attrOf(l, b, "interval", s.Interval, sc, asDuration)
	s.AllGPUs = l.boolAttr(b, "all_gpus", false, sc)
	if s.Interval < minInterval || s.Interval > maxInterval {
		l.diags.errorAt(codeValue, b.attr("interval").expr.Range(),
			"The interval lies between \"10ms\" and \"10s\"; this is %q.", s.Interval)
		return defaultSample()
	}
	return s
}

func (l *loader) limits(b *body, sc *scope) Limits {
	lim := defaultLimits()
	for name, d := range map[string]*time.Duration{
		"timeout": &lim.Timeout, "startup_timeout": &lim.StartupTimeout,
		"silence_timeout": &lim.SilenceTimeout, "idle_timeout": &lim.IdleTimeout,
	} {
		*d = attrOf(l, b, name, *d, sc, asDuration)
	}
	lim.Retries = int(l.intAttr(b, "retries", int64(lim.Retries), 0, 100, sc))
	lim.MaxFailures = int(l.intAttr(b, "max_failures", 0, 0, math.MaxInt32, sc))
	lim.SameFailure = int(l.intAttr(b, "same_failure", int64(lim.SameFailure), 0, math.MaxInt32, sc))
	lim.OnDirtyGPU = attrOf(l, b, "on_dirty_gpu", lim.OnDirtyGPU, sc, oneOf("wait", "skip", "stop"))
	skip := attrOf(l, b, "skip", nil, sc, asStrings)
	for i, s := range skip {
		_, f := oneOf("never_fits", "dominated")("skip", s)
		if f != nil {
			l.diags.errorAt(f.code, elementRange(b.attr("skip").expr, i, len(skip)), "%s", f.detail)
		}
		lim.SkipNeverFits = lim.SkipNeverFits || s == "never_fits"
		lim.SkipDominated = lim.SkipDominated || s == "dominated"
	}
	return lim
}

// gpuList reads the gpus attribute of a sweep.
func (l *loader) gpuList(b *body, sc *scope) []int {
	list := attrOf(l, b, "gpus", nil, sc, func(_ string, v any) ([]any, *misfit) {
		list, ok := v.([]any)
		switch {
		case !ok:
			return nil, misfitf(codeValue, "gpus is a list of GPU indices, as in [0, 1]; this is ", describe(v), ".")
		case len(list) == 0:
			return nil, misfitf(codeValue, "gpus is a list of GPU indices, as in [0, 1]; this is an empty list.")
		}
		return list, nil
	})
	var out []int
	for i, e := range list {
		at := elementRange(b.attr("gpus").expr, i, len(list))
		n, f := asWhole("a GPU index", e, 0, 1023)
		switch {
		case f != nil:
			l.diags.errorAt(f.code, at, "%s", capital(f.detail))
		case slices.Contains(out, int(n)):
			l.diags.errorAt(codeValue, at, "GPU %d is listed twice.", n)
		default:
			out = append(out, int(n))
		}
	}
	return out
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// env reads the env block of a sweep, sorted by name.
// labels are the attributes of a labels block: columns of the tables that nothing
// else depends on.
func (s *sweepBuild) readLabels(b *body) {
	sc := s.scope("a labels block")
	for _, a := range b.attrs {
		v, ok := s.l.value(a.expr, sc)
		if !ok {
			continue
		}
		text, isText := toText(v)
		switch {
		case !isText || text == "" || v.IsNull():
			s.l.diags.errorAt(codeValue, a.expr.Range(), "A label is a string; this is %s.", s.l.describeSecretly(a.expr, v))
		case slices.Contains(SettingNames(), a.name) || slices.Contains(s.declared, a.name):
			s.l.diags.errorAt(codeSetTwice, a.nameRng,
				"%s names a setting or an axis of this sweep, so it cannot be a label as well. "+
					"Give the label another name.", a.name)
		default:
			s.labels = append(s.labels, AxisValue{Axis: a.name, Value: text, Free: true})
		}
	}
}

func (l *loader) env(b *body, sweepScope *scope) []EnvVar {
	sc := *sweepScope
	sc.secretsOK = true
	out := []EnvVar{}
	for _, a := range b.attrs {
		if !envName.MatchString(a.name) || strings.HasPrefix(a.name, "VRAMSWEEP_") {
			l.diags.errorAt(codeEnvName, a.nameRng,
				"%s cannot be set in the child's environment: names that start with VRAMSWEEP_ are vramsweep's own.", show(a.name))
			continue
		}
		v, ok := l.value(a.expr, &sc)
		if !ok {
			continue
		}
		if v.IsNull() {
			continue // left out, as a flag that is null
		}
		text, isText := toText(v)
		if !isText || strings.ContainsRune(text, 0) {
			l.diags.errorAt(codeValue, a.expr.Range(),
				"The value of an environment variable is a string; this is %s.", l.describeSecretly(a.expr, v))
			continue
		}
		if shellVariable.MatchString(text) {
			l.diags.errorAt(codeEnvName, a.expr.Range(), "%s would be the text %s: no shell replaces it. Leave %s out, and the child "+
				"has vramsweep's own; or give it through a variable of the file.", a.name, show(text), a.name)
			continue
		}
		secret := l.tainted(a.expr) != "" || SecretName(a.name)
		out = append(out, EnvVar{Name: a.name, Value: text, Sensitive: secret})
	}
	slices.SortFunc(out, func(a, b EnvVar) int { return strings.Compare(a.Name, b.Name) })
	return out
}
