package sweep

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// plant checks the plant of an engine "simulator": its form is the simulator's
// own, which Inputs.CheckPlant speaks for; what its `when` may look at is known
// here.
func (l *loader) plant(v any) (*cell, *misfit) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, misfitf(codeValue,
			"plant is an object, as in { component = \"weights\", bytes = \"200MiB\" }; this is ", describe(v), ".")
	}
	if l.in.CheckPlant != nil {
		if err := l.in.CheckPlant(m); err != nil {
			f := misfitf(codePlant, sentence("The simulator cannot do this: "+err.Error()))
			f.words = quoted(f.detail)
			return nil, f
		}
	}
	if name := l.unknownWhen(m); name != "" {
		f := misfitf(codePlant, "The when of a plant looks at settings and at vLLM's flags; ", show(name),
			" is neither, so it would match no run.", didYouMean(name, whenNames()))
		f.words = []string{name}
		return nil, f
	}
	return &cell{v: v}, nil
}

// whenNames are the names that a plant's when may look at beside vLLM's flags.
func whenNames() []string {
	return append(SettingNames(), "hf_model_id", "family", "vllm_version", "model_runner", "profile_id", "repeat")
}

// unknownWhen finds a name in a when that no run has.
func (l *loader) unknownWhen(v any) string {
	switch x := v.(type) {
	case []any:
		for _, e := range x {
			if name := l.unknownWhen(e); name != "" {
				return name
			}
		}
	case map[string]any:
		for _, k := range sortedKeys(x) {
			when, isWhen := x[k].(map[string]any)
			if k != "when" || !isWhen {
				if name := l.unknownWhen(x[k]); name != "" {
					return name
				}
				continue
			}
			for _, name := range sortedKeys(when) {
				if !slices.Contains(whenNames(), name) && !l.flags[strings.TrimPrefix(name, "no_")] {
					return name
				}
			}
		}
	}
	return ""
}

// quoted lists the texts that a sentence quotes.
func quoted(sentence string) []string {
	text := regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	var words []string
	for _, q := range text.FindAllString(sentence, -1) {
		if w, err := strconv.Unquote(q); err == nil && w != "" {
			words = append(words, w)
		}
	}
	return words
}

// rangeOf is the range of the only key or text of the expression that is one of
// words; of the whole where there is none, or more than one.
func (e *expression) rangeOf(words []string) hcl.Range {
	var found []hcl.Range
	if len(words) > 0 {
		_ = hclsyntax.VisitAll(e.Expression, func(n hclsyntax.Node) hcl.Diagnostics {
			x, ok := n.(hclsyntax.Expression)
			if !ok {
				return nil
			}
			text, isText := literalText(x)
			if isText && slices.Contains(words, text) && !slices.ContainsFunc(found, x.Range().Overlaps) {
				found = append(found, x.Range())
			}
			return nil
		})
	}
	if len(found) != 1 {
		return e.Range()
	}
	return found[0]
}
