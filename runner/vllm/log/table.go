package log

import (
	_ "embed"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// What vLLM prints stands in two tables beside this file, which say themselves
// what they hold: its lines, and its failures.
var (
	//go:embed lines.txt
	linesTable string
	//go:embed failures.txt
	failuresTable string
)

// otherTexts is the group of entries that are no lines and no failures.
const otherTexts = "Other texts"

// A record is an entry of a table: a name at the margin, then indented keys with
// a text each. A text with blanks at its ends stands in quotes.
type record struct {
	group string // the title above it
	name  string
	texts map[string][]string // by key
	lines [][2]string         // keys and texts, in their order
}

// text is the texts of a key as one expression.
func (r *record) text(key string) string { return strings.Join(r.texts[key], "|") }

func records(table string) []record {
	var all []record
	group := ""
	for line := range strings.Lines(table) {
		line = strings.TrimRight(line, "\r\n")
		switch title, isTitle := strings.CutPrefix(line, "== "); {
		case isTitle:
			group = title
		case line == "" || line[0] == '#':
		case line[0] != '\t':
			all = append(all, record{group: group, name: line, texts: map[string][]string{}})
		case len(all) > 0:
			key, text, _ := strings.Cut(line[1:], " ")
			text = strings.TrimSpace(text)
			if quoted, err := strconv.Unquote(text); err == nil {
				text = quoted
			}
			last := all[len(all)-1]
			last.texts[key] = append(last.texts[key], text)
			all[len(all)-1].lines = append(last.lines, [2]string{key, text})
		}
	}
	return all
}

// A rule reads one kind of line. Its line, versions and fields are what
// docs/logs.md says; a test compares the two.
type rule struct {
	group    string
	name     string
	line     string   // the text, as vLLM formats it
	versions string   // which versions print it
	fields   []string // what of the account is read from it
	memory   bool     // one of them is a size of memory, or a count of what fits into it
	anchors  []string // a line without any of these is not looked at
	re       *regexp.Regexp
	apply    effect // nil: it marks a moment alone
	event    runner.EventKind
	took     int // the group of re that says how long it took; 0: none does
}

// do applies what a line says to the run that it belongs to.
func (rl *rule) do(r *run, p *piece, m []string) {
	if rl.apply != nil {
		rl.apply(r, p, m)
	}
	if rl.event != "" {
		took := ""
		if rl.took > 0 {
			took = m[rl.took]
		}
		r.event(p, rl.event, took)
	}
}

const num = `(-?[\d.]+)`

// readRules are the rules for every line that is read.
func readRules() []rule {
	effects := effects()
	var all []rule
	for _, rec := range records(linesTable) {
		if rec.group == otherTexts {
			continue
		}
		r := rule{
			group: rec.group, name: rec.name, line: rec.text("line"), versions: rec.text("versions"),
			anchors: rec.texts["anchor"], apply: effects[rec.name],
			re: regexp.MustCompile(strings.ReplaceAll(rec.text("text"), "<X>", num)),
		}
		if fields := rec.text("fields"); fields != "" {
			r.fields = strings.Split(fields, ", ")
			r.memory = slices.ContainsFunc(r.fields, isMemory)
		}
		kind, group, _ := strings.Cut(rec.text("event"), " ")
		r.event, r.took = runner.EventKind(kind), atoi(group)
		all = append(all, r)
	}
	return all
}

func isMemory(field string) bool {
	return strings.HasSuffix(field, "_gb") || strings.HasSuffix(field, "_tokens") || strings.HasSuffix(field, "_blocks")
}

// A kindRule is how a kind of failure is worded, and what to do about it.
type kindRule struct {
	kind    string
	re      *regexp.Regexp // nil: what no other kind holds
	advices []adviceRule
}

// An adviceRule is what to do about an error whose message fits re. Groups of re
// stand for %[1]s, %[2]s ... of the text.
type adviceRule struct {
	re   *regexp.Regexp
	text string
}

// kindRules tell a failure's kind from its class and message; the first that
// fits wins.
func kindRules() []kindRule {
	var all []kindRule
	for _, rec := range records(failuresTable) {
		if rec.group == otherTexts {
			continue
		}
		k := kindRule{kind: rec.name}
		if text := rec.text("text"); text != "" {
			k.re = regexp.MustCompile(text)
		}
		var when []string
		for _, line := range rec.lines {
			switch line[0] {
			case "if":
				when = append(when, line[1])
			case "do":
				k.advices = append(k.advices, adviceRule{regexp.MustCompile(strings.Join(when, "|")), line[1]})
				when = nil
			}
		}
		all = append(all, k)
	}
	return all
}

// tables are what is costly to make and only read afterwards: readers share it.
type tables struct {
	rules      []rule
	kinds      []kindRule
	m          *matcher
	anchors    [][]int // the rules of each anchor, by its number
	errors     uint    // number of the first anchor of failures
	statistics uint    // number of the anchor of a server's statistics
	figures    uint    // number of the first anchor of lines that look like memory
	envelopes  *regexp.Regexp
	fatal      *regexp.Regexp
	killed     *regexp.Regexp
	known      *regexp.Regexp // memory that is no part of the account
	backends   *regexp.Regexp
}

func newTables() *tables {
	others := map[string]*record{}
	for _, rec := range append(records(linesTable), records(failuresTable)...) {
		if rec.group == otherTexts {
			others[rec.name] = &rec
		}
	}
	anyOf := func(name string) *regexp.Regexp { return regexp.MustCompile(others[name].text("text")) }
	t := &tables{
		rules: readRules(), kinds: kindRules(), envelopes: anyOf("envelope"), fatal: anyOf("fatal"),
		killed:   anyOf("killed"),
		known:    anyOf("known_memory"),
		backends: regexp.MustCompile("(?i)^(?:" + others["backends"].text("text") + ")$"),
	}
	var texts []string
	number := map[string]int{}
	for i, rl := range t.rules {
		for _, a := range rl.anchors {
			n, ok := number[a]
			if !ok {
				n = len(texts)
				number[a] = n
				texts = append(texts, a)
				t.anchors = append(t.anchors, nil)
			}
			t.anchors[n] = append(t.anchors[n], i)
			if rl.name == "statistics" {
				t.statistics = uint(n)
			}
		}
	}
	t.errors = uint(len(texts))
	texts = append(texts, others["anchors"].texts["text"]...)
	t.figures = uint(len(texts))
	t.m = newMatcher(append(texts, "GiB", " GB", "MiB", " MB", "Gib"))
	return t
}
