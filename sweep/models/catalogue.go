package models

import (
	"cmp"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"sync"

	"github.com/vramsweep/vramsweep"
)

// CatalogueSchema is the schema that models.json names.
const CatalogueSchema = "vramsweep-models/1"

// file is models.json.
type file struct {
	Schema string          `json:"schema"`
	Models []*Architecture `json:"models"`
}

// Builtin is the catalogue that is embedded into the program (models.json). An
// entry is decoded when it is first looked up: a sweep names a few of them, and
// to decode all would be most of what reading a sweep file costs. An error
// means that the program was built with a broken catalogue.
func Builtin() (*Catalogue, error) {
	list, err := scanCatalogue(vramsweep.Models)
	if err != nil {
		return nil, fmt.Errorf("embedded models.json: %w", err)
	}
	return newCatalogue(list), nil
}

// An entry is one architecture of a catalogue, or the text of one.
type entry struct {
	id   string
	hfID string

	once sync.Once
	text []byte // nil: arch is there
	arch *Architecture
}

func entryOf(a *Architecture) *entry { return &entry{id: a.ID, hfID: a.HFModelID, arch: a} }

// architecture decodes the entry if nobody did; nil if it is broken, which a
// test of the embedded catalogue excludes.
func (e *entry) architecture() *Architecture {
	e.once.Do(func() {
		if e.text == nil {
			return
		}
		a := &Architecture{}
		if json.Unmarshal(e.text, a) == nil && a.complete() == nil {
			e.arch = a
		}
	})
	return e.arch
}

// complete checks an architecture and computes what follows from it.
func (a *Architecture) complete() error {
	if a.HFModelID == "" {
		a.HFModelID = a.ID
	}
	if err := a.Check(); err != nil {
		return err
	}
	a.finish()
	return nil
}

// scanCatalogue finds the entries of a models.json and their names without
// decoding them. It takes JSON that is valid and whose names need no escapes,
// as Marshal writes it.
func scanCatalogue(data []byte) ([]*entry, error) {
	var list []*entry
	var e *entry
	schema, key := "", ""
	depth, start := 0, 0 // 1: the file, 2: the list, 3: an entry
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{', '[':
			if depth++; depth == 3 {
				e, start = &entry{}, i
			}
		case '}', ']':
			if depth--; depth == 2 && e != nil {
				e.text = data[start : i+1]
				list, e = append(list, e), nil
			}
		case '"':
			text, isKey, next := scanString(data, i)
			i = next
			switch {
			case isKey:
				key = text
			case depth == 1 && key == "schema":
				schema = text
			case depth == 3:
				e.name(key, text)
			}
		}
	}
	if schema != CatalogueSchema || depth != 0 {
		return nil, fmt.Errorf("the catalogue of models has schema %q, expected %q", schema, CatalogueSchema)
	}
	if err := nameEntries(list); err != nil {
		return nil, err
	}
	return list, nil
}

// name notes a string of the entry if it is one of its names.
func (e *entry) name(key, text string) {
	switch key {
	case "id":
		e.id = text
	case "hf_model_id":
		e.hfID = text
	}
}

// nameEntries gives entries without a Hugging Face id their id for one. An
// entry without an id is an error.
func nameEntries(list []*entry) error {
	for i, e := range list {
		if e.id == "" {
			return fmt.Errorf("the catalogue of models: entry %d has no id", i)
		}
		e.hfID = cmp.Or(e.hfID, e.id)
	}
	return nil
}

// scanString reads the string that begins at i: its text as it is written,
// whether a colon follows, and where its last quote is.
func scanString(data []byte, i int) (text string, isKey bool, end int) {
	end = i + 1
	for end < len(data) && data[end] != '"' {
		if data[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(data) {
		return "", false, len(data)
	}
	return string(data[i+1 : end]), end+1 < len(data) && data[end+1] == ':', end
}

// ParseCatalogue reads the text of a models.json.
func ParseCatalogue(data []byte) (*Catalogue, error) {
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("read the catalogue of models: %w", err)
	}
	if f.Schema != CatalogueSchema {
		return nil, fmt.Errorf("the catalogue of models has schema %q, expected %q", f.Schema, CatalogueSchema)
	}
	seen := map[string]bool{}
	list := make([]*entry, 0, len(f.Models))
	for i, a := range f.Models {
		switch {
		case a == nil || a.ID == "":
			return nil, fmt.Errorf("the catalogue of models: entry %d has no id", i)
		case seen[strings.ToLower(a.ID)]:
			return nil, fmt.Errorf("the catalogue of models names %q twice", a.ID)
		}
		seen[strings.ToLower(a.ID)] = true
		if err := a.complete(); err != nil {
			return nil, fmt.Errorf("the catalogue of models: %s: %w", a.ID, err)
		}
		list = append(list, entryOf(a))
	}
	return newCatalogue(list), nil
}

func newCatalogue(list []*entry) *Catalogue {
	c := &Catalogue{models: make(map[string]*entry, len(list)), byHF: make(map[string]*entry, len(list))}
	for _, e := range list {
		c.models[strings.ToLower(e.id)] = e
	}
	for _, e := range c.models {
		c.names = append(c.names, e.id)
	}
	sort.Strings(c.names)
	for _, name := range c.names {
		e := c.models[strings.ToLower(name)]
		if key := strings.ToLower(e.hfID); c.byHF[key] == nil {
			c.byHF[key] = e
		}
	}
	return c
}

// Lookup finds an architecture by its id, else by the Hugging Face id that it
// stands for. Upper and lower case are not told apart: the Hub does not either.
func (c *Catalogue) Lookup(name string) (*Architecture, bool) {
	if c == nil {
		return nil, false
	}
	key := strings.ToLower(name)
	e, ok := c.models[key]
	if !ok {
		e, ok = c.byHF[key]
	}
	if !ok {
		return nil, false
	}
	a := e.architecture()
	return a, a != nil
}

// Names lists the ids of the catalogue, sorted.
func (c *Catalogue) Names() []string {
	if c == nil {
		return nil
	}
	return append([]string(nil), c.names...)
}

// With is the catalogue with a laid over it: an entry of the same id gives way
// to a. The receiver stays as it was (nil counts as empty).
func (c *Catalogue) With(a *Architecture) *Catalogue {
	b := *a
	if b.HFModelID == "" {
		b.HFModelID = b.ID
	}
	b.derived = nil
	b.finish()
	top := entryOf(&b)
	var list []*entry
	if c != nil {
		for _, e := range c.models {
			list = append(list, e)
		}
	}
	next := newCatalogue(append(list, top)) // the last of an id wins
	next.byHF[strings.ToLower(top.hfID)] = top
	return next
}

// Marshal is the text of a models.json with the entries of c: what `models add`
// writes, and what docs/models.schema.json checks.
func (c *Catalogue) Marshal() ([]byte, error) {
	f := file{Schema: CatalogueSchema, Models: make([]*Architecture, 0, len(c.names))}
	for _, name := range c.names {
		a, ok := c.Lookup(name)
		if !ok {
			return nil, fmt.Errorf("write the catalogue of models: the entry %s cannot be read", name)
		}
		f.Models = append(f.Models, a)
	}
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the catalogue of models: %w", err)
	}
	return append(data, '\n'), nil
}

// MarshalEntry is the text of one entry as models.json holds it.
func (a *Architecture) MarshalEntry() ([]byte, error) {
	data, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write architecture %s: %w", a.ID, err)
	}
	return append(data, '\n'), nil
}
