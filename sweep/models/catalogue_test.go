package models

import "testing"

// TestParseCatalogue reads what is odd, and looks up by either name.
func TestParseCatalogue(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		ok   bool
	}{
		"none": {`{"schema": "vramsweep-models/1", "models": []}`, true},
		"two": {`{"schema": "vramsweep-models/1", "models": [{"id": "a", "hf_model_id": "x/A"}, {"id": "b"}]}`,
			true},
		"twice":        {`{"schema": "vramsweep-models/1", "models": [{"id": "a"}, {"id": "A"}]}`, false},
		"no id":        {`{"schema": "vramsweep-models/1", "models": [{"hf_model_id": "a"}]}`, false},
		"null":         {`{"schema": "vramsweep-models/1", "models": [null]}`, false},
		"other schema": {`{"schema": "vramsweep-models/2", "models": []}`, false},
		"cut":          {`{"schema": "vramsweep-models/1", "models": [{"id": "a"`, false},
		"empty":        {"", false},
	} {
		c, err := ParseCatalogue([]byte(test.text))
		if (err == nil) != test.ok {
			t.Errorf("%s: error %v", name, err)
		}
		if name != "two" || err != nil {
			continue
		}
		for _, by := range []string{"a", "A", "x/a"} {
			if a, ok := c.Lookup(by); !ok || a.ID != "a" || a.derived == nil {
				t.Errorf("by %q %v is found", by, a)
			}
		}
	}
}
