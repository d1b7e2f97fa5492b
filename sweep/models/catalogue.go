package models

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

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
// error means that the program was built with a broken one.
func Builtin() (*Catalogue, error) { return ParseCatalogue(vramsweep.Models) }

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
	for i, a := range f.Models {
		switch {
		case a == nil || a.ID == "":
			return nil, fmt.Errorf("the catalogue of models: entry %d has no id", i)
		case seen[strings.ToLower(a.ID)]:
			return nil, fmt.Errorf("the catalogue of models names %q twice", a.ID)
		}
		seen[strings.ToLower(a.ID)] = true
		a.HFModelID = cmp.Or(a.HFModelID, a.ID)
		if err := a.Check(); err != nil {
			return nil, fmt.Errorf("the catalogue of models: %s: %w", a.ID, err)
		}
		a.finish()
	}
	return newCatalogue(f.Models), nil
}

// newCatalogue is the catalogue of a list; of entries with one id the last wins.
func newCatalogue(list []*Architecture) *Catalogue {
	c := &Catalogue{models: map[string]*Architecture{}, byHF: map[string]*Architecture{}}
	for _, a := range list {
		c.models[strings.ToLower(a.ID)] = a
	}
	for _, a := range c.models {
		c.names = append(c.names, a.ID)
	}
	sort.Strings(c.names)
	for _, name := range c.names {
		a := c.models[strings.ToLower(name)]
		if key := strings.ToLower(a.HFModelID); c.byHF[key] == nil {
			c.byHF[key] = a
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
	a, ok := c.models[key]
	if !ok {
		a, ok = c.byHF[key]
	}
	return a, ok
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
	b.HFModelID = cmp.Or(b.HFModelID, b.ID)
	b.finish()
	var list []*Architecture
	if c != nil {
		list = slices.Collect(maps.Values(c.models))
	}
	next := newCatalogue(append(list, &b))
	next.byHF[strings.ToLower(b.HFModelID)] = &b
	return next
}

// Marshal is the text of a models.json with the entries of c: what `models add`
// writes, and what docs/models.schema.json checks.
func (c *Catalogue) Marshal() ([]byte, error) {
	f := file{Schema: CatalogueSchema, Models: make([]*Architecture, 0, len(c.names))}
	for _, name := range c.names {
		f.Models = append(f.Models, c.models[strings.ToLower(name)])
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
