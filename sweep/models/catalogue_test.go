package models

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vramsweep/vramsweep"
)

// TestBuiltinIsWhole decodes every entry of the embedded catalogue: looked up
// one by one they are what reading the whole file gives.
func TestBuiltinIsWhole(t *testing.T) {
	want, err := ParseCatalogue(vramsweep.Models)
	if err != nil {
		t.Fatal(err)
	}
	got := builtin(t)
	if d := cmp.Diff(want.Names(), got.Names()); d != "" {
		t.Fatalf("names (-whole +scanned):\n%s", d)
	}
	for _, name := range want.Names() {
		a, _ := want.Lookup(name)
		b, ok := got.Lookup(name)
		if !ok {
			t.Errorf("%s cannot be looked up", name)
			continue
		}
		if d := cmp.Diff(a, b, cmpopts.IgnoreUnexported(Architecture{})); d != "" {
			t.Errorf("%s (-whole +scanned):\n%s", name, d)
		}
		if b.derived == nil {
			t.Errorf("%s is not finished", name)
		}
		x, _ := want.Lookup(a.HFModelID)
		y, ok := got.Lookup(a.HFModelID)
		if !ok || x.ID != y.ID {
			t.Errorf("%s: by %s %v is found", name, a.HFModelID, y)
		}
	}
	text, err := got.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, vramsweep.Models) {
		t.Error("models.json is not as Marshal writes it")
	}
}

// TestScanCatalogue reads what is odd.
func TestScanCatalogue(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		ids  []string
		ok   bool
	}{
		"none":         {`{"schema": "vramsweep-models/1", "models": []}`, nil, true},
		"braces":       {`{"schema": "vramsweep-models/1", "models": [{"id": "a", "notes": ["}]{\"", "\\"]}, {"moe": {"id": 1}, "id": "b"}]}`, []string{"a", "b"}, true},
		"no id":        {`{"schema": "vramsweep-models/1", "models": [{"hf_model_id": "a"}]}`, nil, false},
		"other schema": {`{"schema": "vramsweep-models/2", "models": []}`, nil, false},
		"cut":          {`{"schema": "vramsweep-models/1", "models": [{"id": "a"`, nil, false},
		"cut string":   {`{"schema": "vramsweep-models/1", "models": [{"id": "a\`, nil, false},
		"empty":        {"", nil, false},
	} {
		list, err := scanCatalogue([]byte(test.text))
		if (err == nil) != test.ok {
			t.Errorf("%s: error %v", name, err)
		}
		var ids []string
		for _, e := range list {
			ids = append(ids, e.id)
		}
		if d := cmp.Diff(test.ids, ids); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
