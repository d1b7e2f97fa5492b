package models

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/google/jsonschema-go/jsonschema"
)

// schema compiles docs/models.schema.json.
func schema(t *testing.T) *jsonschema.Resolved {
	t.Helper()
	data, err := os.ReadFile("../../docs/models.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s jsonschema.Schema
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	resolved, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return resolved
}

func TestCatalogueFollowsSchema(t *testing.T) {
	s := schema(t)
	data, err := os.ReadFile("../../models.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc any
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(doc); err != nil {
		t.Errorf("models.json: %v", err)
	}
	again, err := builtin(t).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again, data) {
		t.Error("reading models.json and writing it again changes it")
	}
}

// TestSchemaRefuses shows that the schema can fail: each text breaks one rule.
func TestSchemaRefuses(t *testing.T) {
	s := schema(t)
	for name, text := range map[string]string{
		"wrong schema":  `{"schema":"vramsweep-models/2","models":[]}`,
		"no models":     `{"schema":"vramsweep-models/1"}`,
		"missing field": `{"schema":"vramsweep-models/1","models":[{"id":"x"}]}`,
		"unknown field": `{"schema":"vramsweep-models/1","models":[],"more":1}`,
	} {
		var doc any
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatal(err)
		}
		if s.Validate(doc) == nil {
			t.Errorf("%s: %s passes", name, text)
		}
	}
}
