package simulate

import (
	"cmp"
	"embed"
	"fmt"
	"slices"
	"strings"
)

// DefaultVersion is the vLLM that is imitated where nothing else is asked.
const DefaultVersion = "0.33.0"

// wordFiles hold what each version prints, a file a version; the exceptions,
// which are the same in all; and the flags of `vllm bench latency`.
//
//go:embed words
var wordFiles embed.FS

// words are what one vLLM prints, and in which order it starts.
type words struct {
	version string
	lines   []wording
	// v33 is the start-up of 0.33: the V2 runner captures its graphs once for an
	// estimate, the account contains it, and kernels are warmed up before the
	// capture and not after it.
	v33 bool
}

// A wording is one record or exception, with {names} for figures.
type wording struct {
	moment, who, level, file, text string
}

// wordsOf finds the words of a version: "0.26.0", "v0.33.1rc0"; "" is the
// default.
func wordsOf(version string) (*words, error) {
	w := &words{version: strings.TrimPrefix(cmp.Or(version, DefaultVersion), "v")}
	for _, known := range knownVersions() {
		if rest, ok := strings.CutPrefix(w.version, known); ok && strings.HasPrefix(rest, ".") {
			w.v33 = known == "0.33"
			w.lines = append(wordingsIn(known), wordingsIn("failures")...)
			return w, nil
		}
	}
	return nil, fmt.Errorf("vllm_version %q: the simulator speaks as vLLM %s; name one of their releases, as in %q",
		version, strings.Join(knownVersions(), " or "), DefaultVersion)
}

// knownVersions are the minor releases that have words, the newest last: those
// that this project has recorded on real GPUs.
func knownVersions() []string { return []string{"0.26", "0.33"} }

// wordsFile reads an embedded file.
func wordsFile(name string) []string {
	data, err := wordFiles.ReadFile("words/" + name + ".txt")
	if err != nil { // the names above are embedded: cannot happen
		return nil
	}
	return strings.Split(string(data), "\n")
}

// wordingsIn reads the wordings of a file, whose form 0.26.txt explains.
func wordingsIn(name string) []wording {
	var out []wording
	for _, line := range wordsFile(name) {
		var w wording
		rest := line
		for _, part := range []*string{&w.moment, &w.who, &w.level, &w.file} {
			*part, rest, _ = strings.Cut(rest, " ")
			rest = strings.TrimLeft(rest, " ")
		}
		if w.text = strings.ReplaceAll(rest, `\n`, "\n"); w.text != "" && !strings.HasPrefix(line, "#") {
			out = append(out, w)
		}
	}
	return out
}

// of are the wordings of a moment with a model runner.
func (w *words) of(moment, runner string) []wording {
	return slices.DeleteFunc(slices.Clone(w.lines), func(one wording) bool {
		return one.moment != moment && one.moment != moment+"."+runner
	})
}

// failure is an exception; values are {name}, value, and so on.
func (w *words) failure(moment string, values ...string) *failure {
	for _, one := range w.of(moment, "") {
		return &failure{class: one.file, text: strings.NewReplacer(values...).Replace(one.text), worker: one.who == "ranks"}
	}
	return &failure{class: "RuntimeError", text: moment}
}
