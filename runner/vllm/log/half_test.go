package log

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/recorded"
)

// someLogs are twenty logs of each kind that there is: our own recordings, and
// those of others where they are beside the repository.
func someLogs(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	var paths []string
	for _, name := range []string{"h100-v0.26", "h200-v0.33"} {
		found, err := filepath.Glob(filepath.Join(recorded.Folder(t, name), "runs", "*", "*", "stdout.log"))
		if err != nil || len(found) == 0 {
			t.Fatalf("no logs in the recording %s: %v", name, err)
		}
		for i := 0; i < len(found); i += max(1, len(found)/4) {
			paths = append(paths, found[i])
		}
	}
	for i, pattern := range []string{"vllm-logs/*.log", "h100-v0.19/*.log"} {
		found, _ := filepath.Glob(filepath.Join(corpusDir, pattern))
		for n := i; n < len(found); n += 3 + 9*i {
			paths = append(paths, found[n])
		}
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) < 200_000 {
			texts[path] = string(b)
		}
	}
	return texts
}

// wrapAt breaks every line at a column, as a terminal does.
func wrapAt(columns int, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		runes := []rune(strings.TrimRight(line, "\r\n"))
		for len(runes) > columns {
			b.WriteString(string(runes[:columns]) + "\n")
			runes = runes[columns:]
		}
		b.WriteString(string(runes) + "\n")
	}
	return b.String()
}

// mangled is what people make of a log before they post it.
func mangled(text string) map[string]string {
	all := map[string]string{}
	lines := strings.SplitAfter(text, "\n")
	for at := 10; at < len(lines); at += 10 {
		all[fmt.Sprintf("to line %d", at)] = strings.Join(lines[:at], "")
		all[fmt.Sprintf("from line %d", at+1)] = strings.Join(lines[at:], "")
	}
	prefixes := map[string]string{
		"": "", "compose": "vllm-1  | ", "k9s": "vllm-7d9c5f7b9-x2x4v vllm ", "box": "│ ",
		"journald": "Nov 23 19:00:20 gpu-01 vllm[2594]: ",
	}
	for name, prefix := range prefixes {
		all[name+" whole"] = prefixed(prefix)(text)
		for _, columns := range []int{80, 100, 120} {
			all[fmt.Sprintf("%s wrapped at %d", name, columns)] = wrapAt(columns, prefixed(prefix)(text))
			all[fmt.Sprintf("%s prefixed, wrapped before at %d", name, columns)] = prefixed(prefix)(wrapAt(columns, text))
		}
	}
	return all
}

// sayings of accounts: each value by its field, and each advice.
func valuesOf(t *testing.T, accounts []*runner.Account) (values map[string][]any, advice []string) {
	t.Helper()
	values = map[string][]any{}
	for _, a := range accounts {
		m := asJSON(t, a)
		for name, v := range m {
			switch name {
			case "ranks", "budget", "sources", "derived", "missing", "error", "unread_lines", "unread_count", "label", "no_higher_share":
				continue
			}
			values[name] = append(values[name], v)
		}
		for _, k := range a.Ranks {
			for name, v := range asJSON(t, k) {
				if name == "rank" {
					continue
				}
				if k.Rank >= 0 {
					values[fmt.Sprintf("ranks[%d].%s", k.Rank, name)] = append(values[fmt.Sprintf("ranks[%d].%s", k.Rank, name)], v)
				}
				values["of a rank: "+name] = append(values["of a rank: "+name], v)
			}
		}
		if a.Error != nil {
			for name, v := range asJSON(t, a.Error) {
				switch name {
				case "line", "file", "message", "rests_on", "advice":
				default:
					values["error."+name] = append(values["error."+name], v)
				}
			}
			advice = append(advice, a.Error.Advice)
		}
		for _, g := range Gains(a) {
			advice = append(advice, g.Text)
		}
	}
	return values, advice
}

// tokensRE is what an advice says in tokens, where the log has both tokens and GiB.
var (
	tokensRE = regexp.MustCompile(`, [\d,]+ tokens`)
	fromRE   = regexp.MustCompile(` from [\d.]+`)
	figureRE = regexp.MustCompile(`\d[\d.,]*\d|\d`)
)

// advises reports whether an advice says nothing that another does not: what to
// do in the same words, and no figure that the other lacks. The figures of the
// failure before it may be fewer.
func advises(got, want string) bool {
	remedy := func(s string) string {
		_, what, _ := strings.Cut(fromRE.ReplaceAllString(tokensRE.ReplaceAllString(s, ""), ""), ": ")
		return what
	}
	figures := figureRE.FindAllString(want, -1)
	return remedy(got) == remedy(want) &&
		!slices.ContainsFunc(figureRE.FindAllString(got, -1), func(f string) bool { return !slices.Contains(figures, f) })
}

// alike reports whether two values are the same, or a figure and what a line of
// two digits rounds it to.
func alike(got, want any) bool {
	w, ok := want.(float64)
	return same(got, want) || ok && same(got, math.Round(w*100)/100)
}

// TestHalfReadLogs: of a log that is cut, wrapped or prefixed nothing is told
// that the whole log does not tell.
func TestHalfReadLogs(t *testing.T) {
	for path, text := range someLogs(t) {
		t.Run(filepath.Base(filepath.Dir(path))+"/"+filepath.Base(path), func(t *testing.T) {
			read := func(text string) *Log {
				log, err := readLogs(sharedReader.reader(ReaderOptions{NoEvents: true, Apart: true}), NamedReader{Name: "x", R: strings.NewReader(text)})
				if err != nil {
					t.Fatal(err)
				}
				return log
			}
			accounts := read(text).Accounts
			whole, wholeAdvice := valuesOf(t, accounts)
			for name, half := range mangled(text) {
				values, advice := valuesOf(t, read(half).Accounts)
				for field, got := range values {
					for _, v := range got {
						if v != nil && v != KindUnknown && !slices.ContainsFunc(whole[field], func(w any) bool { return alike(v, w) }) {
							t.Errorf("%s: %s = %v, the whole log says %v", name, field, v, whole[field])
						}
					}
				}
				for _, a := range advice {
					if a != "" && !slices.ContainsFunc(wholeAdvice, func(w string) bool { return advises(a, w) }) {
						t.Errorf("%s: advice %q, the whole log gives %q", name, a, wholeAdvice)
					}
				}
			}
		})
	}
}
