package sweep

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var (
	messageHeading = regexp.MustCompile(`(?m)^### (S\d{3}) (.+)$`)
	messageExample = regexp.MustCompile("(?ms)^```hcl (wrong|right)(?: ([^\n]*))?\n(.*?)^```$")
)

// TestMessagesPage checks docs/messages.md: it has every code with its
// summary, every wrong file leads to its code and every right one to none.
func TestMessagesPage(t *testing.T) {
	page, err := os.ReadFile("../docs/messages.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[code]bool{}
	heads := messageHeading.FindAllStringSubmatchIndex(string(page), -1)
	for i, h := range heads {
		c := code(page[h[2]:h[3]]) + " " + code(page[h[4]:h[5]])
		end := len(page)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		found[c] = true
		t.Run(c.id(), func(t *testing.T) {
			kinds := map[string]bool{}
			for _, ex := range messageExample.FindAllStringSubmatch(string(page[h[1]:end]), -1) {
				kinds[ex[1]] = true
				codes := loadExample(t, ex[2], ex[3])
				if got := slices.Contains(codes, c.id()); got != (ex[1] == "wrong") {
					t.Errorf("the %s file gives %v:\n%s", ex[1], codes, ex[3])
				}
				if ex[1] == "right" && len(codes) > 0 {
					t.Errorf("the right file gives %v:\n%s", codes, ex[3])
				}
			}
			if c != codeFlagMissing && len(kinds) != 2 {
				t.Errorf("it has the files %v, want a wrong and a right one", kinds)
			}
		})
	}
	for _, c := range allCodes(t) {
		if !found[c] {
			t.Errorf("docs/messages.md does not explain %s", c)
		}
		delete(found, c)
	}
	for c := range found {
		t.Errorf("docs/messages.md explains %s, which is none", c)
	}
}

// loadExample loads a file of the page and returns the codes of its messages.
func loadExample(t *testing.T, args, text string) []string {
	t.Helper()
	if !strings.HasPrefix(text, "-- ") {
		text = "-- sweep.hcl --\n" + text
	}
	c := &goldenCase{load: "sweep.hcl", in: Inputs{WorkDir: t.TempDir()}}
	if args != "" {
		for _, arg := range strings.Split(args, "; ") {
			c.arg(t, arg)
		}
	}
	for _, f := range txtar.Parse([]byte(text)).Files {
		writeFile(t, c.in.WorkDir, f.Name, string(f.Data))
	}
	plan, err := Load(c.load, c.in)
	var list []Diagnostic
	if e, ok := asError(err); ok {
		list = e.Diagnostics()
	} else if err != nil {
		t.Fatal(err)
	} else {
		list = plan.Warnings
	}
	var codes []string
	for _, d := range list {
		codes = append(codes, d.Code)
	}
	return codes
}

// TestLanguagePage checks that docs/language.md has the rows of the schema and
// the tables that follow from the settings and the functions; -update writes these.
func TestLanguagePage(t *testing.T) {
	const path = "../docs/language.md"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	checkBlocks(t, text)
	for name, want := range map[string]string{"settings": settingsTable(), "functions": functionsTable()} {
		begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->"
		i, j := strings.Index(text, begin), strings.Index(text, end)
		if i < 0 || j < i {
			t.Fatalf("%s has no section %q", path, name)
		}
		i += len(begin)
		if *update {
			text = text[:i] + want + text[j:]
		} else if text[i:j] != want {
			t.Errorf("%s: section %q is\n%s\nwant\n%s", path, name, text[i:j], want)
		}
	}
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i, ex := range regexp.MustCompile("(?ms)^```hcl\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		if codes := loadExample(t, "", ex[1]); len(codes) > 0 {
			t.Errorf("example %d of %s gives %v:\n%s", i+1, path, codes, ex[1])
		}
	}
}

// blockRow is a row of a block's table: attribute, kind, default.
var blockRow = regexp.MustCompile("(?m)^\\| (?:`(\\w+)`|(any other name)) \\|[^|]*\\| ?([^|]*?) ?\\|")

// checkBlocks holds the tables of the blocks against the schema.
func checkBlocks(t *testing.T, page string) {
	begin := strings.Index(page, "<!-- blocks -->")
	page = page[begin:strings.Index(page, "<!-- end of blocks -->")]
	parts := map[string]string{}
	for _, part := range strings.Split(page, "\n### ")[1:] {
		head, text, _ := strings.Cut(part, "\n")
		parts[head] = text
	}
	var walk func(s *blockSpec, path string)
	walk = func(s *blockSpec, path string) {
		path = strings.TrimSpace(path + " " + s.name)
		for _, sub := range s.blocks {
			walk(sub, path)
		}
		if s.name == "" {
			return
		}
		head := path
		if s.label != "" {
			head += ` "` + s.label + `"`
		}
		text, ok := parts[head]
		if !ok {
			t.Errorf("docs/language.md has no part %q", head)
			return
		}
		delete(parts, head)
		var got, want []string
		for _, row := range blockRow.FindAllStringSubmatch(text, -1) {
			got = append(got, row[1]+row[2]+map[bool]string{true: " required"}[row[3] == "required"])
		}
		for _, a := range s.attrs {
			want = append(want, a.name+map[bool]string{true: " required"}[a.need != ""])
		}
		if s.free {
			want = append(want, "any other name")
		}
		if !slices.Equal(got, want) {
			t.Errorf("docs/language.md: %s has the rows %q, want %q", head, got, want)
		}
		if strings.Contains(text, "At most one.") != s.single {
			t.Errorf("docs/language.md: %s: whether there is one at most", head)
		}
	}
	walk(schema(), "")
	for head := range parts {
		t.Errorf("docs/language.md has the part %q, which is no block", head)
	}
}

func settingsTable() string {
	var b strings.Builder
	b.WriteString("\n| setting | takes | default | meaning |\n|---|---|---|---|\n")
	kinds := map[settingKind]string{kindText: "string", kindWhole: "whole number", kindShare: "number", kindBool: "bool",
		kindSize: "size", kindModel: "string"}
	for _, s := range settings() {
		fallback := "left to vLLM"
		if s.preset != 0 {
			fallback = show(s.preset)
		}
		if s.name == "model" {
			fallback = "required"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", s.name, kinds[s.kind], fallback, s.doc)
	}
	return b.String() + "\n"
}

func functionsTable() string {
	return "\n`" + strings.Join(functionNames(), "` `") + "`\n\n"
}

// functionNames are the functions that expressions may call, sorted.
func functionNames() []string { return sortedKeys((&loader{guard: &budget{}}).functions()) }
