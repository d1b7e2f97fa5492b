package sweep

import (
	"errors"
	"math"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// defaultOutputDir is where results go if no output block says so.
const defaultOutputDir = "results"

// attrValue evaluates an attribute of a block, if it stands there and is not
// null. The range is that of the expression.
func (l *loader) attrValue(b *body, name string, sc *scope) (v any, rng hcl.Range, ok bool) {
	a := b.attr(name)
	if a == nil {
		return nil, hcl.Range{}, false
	}
	val, ok := l.value(a.expr, sc)
	if !ok {
		return nil, a.expr.Range(), false
	}
	g, ok := toGo(val)
	if !ok || g == nil {
		l.diags.errorAt(codeValue, a.expr.Range(), "%s has no value here: it is null. Leave the line out instead.", name)
		return nil, a.expr.Range(), false
	}
	return g, a.expr.Range(), true
}

func (l *loader) stringAttr(b *body, name, fallback string, sc *scope) string {
	v, rng, ok := l.attrValue(b, name, sc)
	if !ok {
		return fallback
	}
	s, isText := v.(string)
	if !isText || strings.ContainsRune(s, 0) {
		l.diags.errorAt(codeValue, rng, "%s is a string; this is %s.", name, describe(v))
		return fallback
	}
	return s
}

func (l *loader) boolAttr(b *body, name string, fallback bool, sc *scope) bool {
	v, rng, ok := l.attrValue(b, name, sc)
	if !ok {
		return fallback
	}
	x, isBool := v.(bool)
	if !isBool {
		l.diags.errorAt(codeValue, rng, "%s is true or false; this is %s.", name, describe(v))
		return fallback
	}
	return x
}

func (l *loader) intAttr(b *body, name string, fallback, low, high int64, sc *scope) int64 {
	v, rng, ok := l.attrValue(b, name, sc)
	if !ok {
		return fallback
	}
	n, f := asWhole(name, v, low, high)
	if f != nil {
		l.diags.errorAt(f.code, rng, "%s", f.detail)
		return fallback
	}
	return n
}

// choiceAttr takes one of a few strings.
func (l *loader) choiceAttr(b *body, name, fallback string, choices []string, sc *scope) string {
	a := b.attr(name)
	s := l.stringAttr(b, name, fallback, sc)
	if a != nil && s != fallback && !slices.Contains(choices, s) {
		l.diags.errorAt(codeChoice, a.expr.Range(), "%s", choiceDetail(name, s, choices))
		return fallback
	}
	return s
}

func choiceDetail(name, s string, choices []string) string {
	quoted := make([]string, len(choices))
	for i, c := range choices {
		quoted[i] = show(c)
	}
	return name + " is one of " + strings.Join(quoted, ", ") + "; this is " + show(s) + "." + didYouMean(s, choices)
}

func (l *loader) durationAttr(b *body, name string, fallback time.Duration, sc *scope) time.Duration {
	v, rng, ok := l.attrValue(b, name, sc)
	if !ok {
		return fallback
	}
	switch x := v.(type) {
	case string:
		d, err := ParseDuration(x)
		if errors.Is(err, errNoUnit) {
			l.diags.errorAt(codeUnit, rng, "A duration needs a unit, as in %q or %q.", strings.TrimSpace(x)+"s", "500ms")
		} else if err != nil {
			l.diags.errorAt(codeValue, rng, "%s: a duration is a number with a unit, as in \"30s\", \"500ms\", \"1h30m\" or \"2d\".", err)
		} else {
			return d
		}
	case int64, float64:
		l.diags.errorAt(codeUnit, rng, "A duration is a string with a unit, as in \"%ss\" or \"500ms\".", show(x))
	default:
		l.diags.errorAt(codeValue, rng, "%s is a duration, as in \"30s\"; this is %s.", name, describe(v))
	}
	return fallback
}

func (l *loader) sizeAttr(b *body, name string, sc *scope) *int64 {
	v, rng, ok := l.attrValue(b, name, sc)
	if !ok {
		return nil
	}
	switch x := v.(type) {
	case string:
		n, err := ParseSize(x)
		if errors.Is(err, errNoUnit) {
			l.diags.errorAt(codeUnit, rng, "A size needs a unit, as in %q.", strings.TrimSpace(x)+"GiB")
		} else if err != nil {
			l.diags.errorAt(codeValue, rng, "%s.", err)
		} else {
			return &n
		}
	case int64, float64:
		l.diags.errorAt(codeUnit, rng, "A size is a string with a unit, as in \"%sGiB\".", show(x))
	default:
		l.diags.errorAt(codeValue, rng, "%s is a size, as in \"80GiB\"; this is %s.", name, describe(v))
	}
	return nil
}

// stringsAttr takes a list of strings.
func (l *loader) stringsAttr(b *body, name string, sc *scope) ([]string, *attr) {
	a := b.attr(name)
	v, rng, ok := l.attrValue(b, name, sc)
	if !ok {
		return nil, a
	}
	list, f := asStrings(name, v)
	if f != nil {
		l.diags.errorAt(f.code, rng, "%s", f.detail)
		return nil, a
	}
	return list, a
}

// output reads the output block.
func (l *loader) output() string {
	dir := defaultOutputDir
	var first *block
	for _, b := range l.root.blocks {
		if b.name != "output" {
			continue
		}
		if first != nil {
			continue // reported by checkBody within a file and by merge across files
		}
		first = b
		dir = l.stringAttr(b.body, "dir", dir, plainScope("the output block"))
		if strings.TrimSpace(dir) == "" {
			l.diags.errorAt(codeValue, b.body.attr("dir").expr.Range(), "dir is the folder for results; this is empty. The working directory is \".\".")
		}
	}
	return dir
}

// gpus reads the gpu blocks.
func (l *loader) gpus() []GPU {
	out := []GPU{}
	seen := map[string]*block{}
	sc := plainScope("a gpu block")
	for _, b := range l.root.blocks {
		if b.name != "gpu" {
			continue
		}
		if first, ok := seen[b.label]; ok {
			l.duplicate(b, first)
			continue
		}
		seen[b.label] = b
		if !isName(b.label) {
			l.diags.errorAt(codeName, b.labelRng, "%s", nameRule("GPU", b.label))
		}
		g := GPU{
			Name: b.label, Like: l.stringAttr(b.body, "like", "", sc), TotalMemory: l.sizeAttr(b.body, "total_memory", sc),
			Reserve: l.sizeAttr(b.body, "reserve", sc), Context: l.sizeAttr(b.body, "context", sc),
		}
		if g.Like != "" {
			l.checkGPUName(g.Like, b.body.attr("like").expr.Range())
		} else if g.TotalMemory == nil && b.body.attr("like") == nil && b.body.attr("total_memory") == nil {
			l.diags.errorAt(codeMissingArg, b.rng, "A gpu block needs \"like\", the GPU of the catalogue that it resembles, or \"total_memory\".")
		}
		out = append(out, g)
		l.gpuBlocks = append(l.gpuBlocks, g.Name)
	}
	return out
}

func (l *loader) checkGPUName(name string, rng hcl.Range) {
	known := gpuNames()
	if len(known) > 0 && !contains(known, name) {
		l.diags.errorAt(codeUnknownGPU, rng, "The catalogue has no GPU %q.%s", name, suggestOrList(name, known))
	}
}

func nameRule(what, name string) string {
	return "The name of a " + what + " has letters, digits, \".\", \"_\" and \"-\", starts with a letter or digit and has at most 64 characters; this is " + show(name) + ". It becomes part of the names of files."
}

func defaultSample() Sample { return Sample{Interval: 100 * time.Millisecond} }

func defaultLimits() Limits {
	return Limits{
		Timeout: time.Hour, StartupTimeout: 30 * time.Minute, SilenceTimeout: 10 * time.Minute,
		IdleTimeout: 5 * time.Minute, Retries: 1, OnDirtyGPU: "wait",
	}
}

func (l *loader) sample(b *body, sc *scope) Sample {
	s := defaultSample()
	s.Interval = l.durationAttr(b, "interval", s.Interval, sc)
	s.AllGPUs = l.boolAttr(b, "all_gpus", false, sc)
	if s.Interval < 10*time.Millisecond || s.Interval > 10*time.Second {
		l.diags.errorAt(codeValue, b.attr("interval").expr.Range(), "The interval lies between \"10ms\" and \"10s\"; this is %q.", s.Interval)
		return defaultSample()
	}
	return s
}

func (l *loader) limits(b *body, sc *scope) Limits {
	lim := defaultLimits()
	lim.Timeout = l.durationAttr(b, "timeout", lim.Timeout, sc)
	lim.StartupTimeout = l.durationAttr(b, "startup_timeout", lim.StartupTimeout, sc)
	lim.SilenceTimeout = l.durationAttr(b, "silence_timeout", lim.SilenceTimeout, sc)
	lim.IdleTimeout = l.durationAttr(b, "idle_timeout", lim.IdleTimeout, sc)
	lim.Retries = int(l.intAttr(b, "retries", int64(lim.Retries), 0, 100, sc))
	lim.MaxFailures = int(l.intAttr(b, "max_failures", 0, 0, math.MaxInt32, sc))
	lim.OnDirtyGPU = l.choiceAttr(b, "on_dirty_gpu", lim.OnDirtyGPU, []string{"wait", "skip", "stop"}, sc)
	skip, a := l.stringsAttr(b, "skip", sc)
	for i, s := range skip {
		switch s {
		case "never_fits":
			lim.SkipNeverFits = true
		case "dominated":
			lim.SkipDominated = true
		default:
			l.diags.errorAt(codeChoice, elementRange(a.expr, i, len(skip)), "%s", choiceDetail("skip", s, []string{"never_fits", "dominated"}))
		}
	}
	return lim
}

// gpuList reads the gpus attribute of a sweep.
func (l *loader) gpuList(b *body, sc *scope) []int {
	v, rng, ok := l.attrValue(b, "gpus", sc)
	if !ok {
		return nil
	}
	list, isList := v.([]any)
	if !isList || len(list) == 0 {
		l.diags.errorAt(codeValue, rng, "gpus is a list of GPU indices, as in [0, 1]; this is %s.", describeList(v))
		return nil
	}
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

func describeList(v any) string {
	if l, ok := v.([]any); ok && len(l) == 0 {
		return "an empty list"
	}
	return describe(v)
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// secretName matches names of environment variables whose values are secrets
// whatever they come from.
var secretName = regexp.MustCompile(`(?i)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)`)

// env reads the env block of a sweep, sorted by name.
func (l *loader) env(b *body, sweepScope *scope) []EnvVar {
	sc := *sweepScope
	sc.secretsOK = true
	out := []EnvVar{}
	for _, a := range b.attrs {
		if !envName.MatchString(a.name) || strings.HasPrefix(a.name, "VRAMSWEEP_") {
			l.diags.errorAt(codeEnvName, a.nameRng, "%s cannot be set in the child's environment: names that start with VRAMSWEEP_ are vramsweep's own.", show(a.name))
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
			l.diags.errorAt(codeValue, a.expr.Range(), "The value of an environment variable is a string; this is %s.", l.describeSecretly(a.expr, v))
			continue
		}
		out = append(out, EnvVar{Name: a.name, Value: text, Sensitive: l.tainted(a.expr) != "" || secretName.MatchString(a.name)})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}
