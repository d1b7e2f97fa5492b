package log

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
)

const docsPage = "../../../docs/logs.md"

// ruleTable is the part of docs/logs.md that the rules write themselves.
func ruleTable() string {
	var b strings.Builder
	group := ""
	for _, r := range readRules() {
		if r.group != group {
			if group != "" {
				b.WriteString("\n")
			}
			group = r.group
			fmt.Fprintf(&b, "### %s\n\n| text (X a figure, N a count, S seconds) | vLLM | read into |\n|---|---|---|\n", group)
		}
		fields := "moments of the run only"
		if len(r.fields) > 0 {
			fields = "`" + strings.Join(r.fields, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", strings.ReplaceAll(r.line, "|", "\\|"), r.versions, fields)
	}
	b.WriteString("\n")
	return b.String()
}

const (
	tableBegin = "<!-- begin: written by the rules of runner/vllm/log, go test ./runner/vllm/log -run Docs -update -->\n"
	tableEnd   = "<!-- end -->\n"
)

func TestDocsHoldTheRules(t *testing.T) {
	page, err := os.ReadFile(filepath.FromSlash(docsPage))
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := bytes.Cut(page, []byte(tableBegin))
	table, after, ok2 := bytes.Cut(rest, []byte(tableEnd))
	if !ok1 || !ok2 {
		t.Fatalf("%s lacks the marks of the written table", docsPage)
	}
	if want := ruleTable(); string(table) != want {
		if !*update {
			t.Fatalf("%s and the rules differ; go test ./runner/vllm/log -run Docs -update writes the table anew", docsPage)
		}
		page = bytes.Join([][]byte{before, []byte(tableBegin), []byte(want), []byte(tableEnd), after}, nil)
		if err := os.WriteFile(docsPage, page, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDocsNameEveryField: each field of the account and each kind of failure
// stands on the page.
func TestDocsNameEveryField(t *testing.T) {
	page, err := os.ReadFile(filepath.FromSlash(docsPage))
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []reflect.Type{reflect.TypeFor[runner.Account](), reflect.TypeFor[runner.AccountRank](), reflect.TypeFor[runner.AccountError]()} {
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if !bytes.Contains(page, []byte("`"+name+"`")) {
				t.Errorf("%s does not name the field %s", docsPage, name)
			}
		}
	}
	names := []string{KindUnknown}
	for _, k := range kindRules() {
		names = append(names, k.kind)
	}
	for _, k := range names {
		if !bytes.Contains(page, []byte("| `"+k+"` |")) {
			t.Errorf("%s does not explain the failure %s", docsPage, k)
		}
	}
}

// TestRulesNameFieldsOfTheAccount: what a rule says it fills exists.
func TestRulesNameFieldsOfTheAccount(t *testing.T) {
	known := map[string]bool{"ranks": true}
	for _, typ := range []reflect.Type{reflect.TypeFor[runner.Account](), reflect.TypeFor[runner.AccountRank]()} {
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			known[name] = true
		}
	}
	for _, r := range readRules() {
		for _, f := range r.fields {
			if !known[f] {
				t.Errorf("rule %s fills %s, which the account lacks", r.name, f)
			}
		}
	}
}

// TestTables: lines.txt and failures.txt hold nothing that the code does not
// know, and the code nothing that they lack.
func TestTables(t *testing.T) {
	keys := "line versions fields anchor text event if do"
	for _, rec := range append(records(linesTable), records(failuresTable)...) {
		for key, texts := range rec.texts {
			if !slices.Contains(strings.Fields(keys), key) || slices.Contains(texts, "") {
				t.Errorf("%s: %s %q", rec.name, key, texts)
			}
		}
		if len(rec.texts["do"]) > len(rec.texts["if"])+1 {
			t.Errorf("%s: more than one advice without an if", rec.name)
		}
	}
	unused := effects()
	for _, r := range readRules() {
		delete(unused, r.name)
		switch {
		case r.line == "" || r.versions == "" || r.group == "" || r.re == nil || len(r.anchors) == 0:
			t.Errorf("rule %s is not whole", r.name)
		case r.apply == nil && r.event == "":
			t.Errorf("rule %s does nothing", r.name)
		case r.event != "" && runner.ReachedBy(r.event) == "" && r.event != runner.EventShutdown:
			t.Errorf("rule %s marks %s, which is no moment of a run", r.name, r.event)
		case r.took > r.re.NumSubexp():
			t.Errorf("rule %s has no group %d", r.name, r.took)
		}
		for _, a := range r.anchors {
			if len(a) < 3 {
				t.Errorf("rule %s: the anchor %q is too short for the matcher", r.name, a)
			}
		}
	}
	for name := range unused {
		t.Errorf("effect %s has no entry in lines.txt", name)
	}
	for _, k := range kindRules() {
		if k.re != nil && k.re.MatchString("") {
			t.Errorf("kind %s has no text", k.kind)
		}
	}
}
