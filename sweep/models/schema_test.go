package models

import (
	"bytes"
	"os"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schema compiles docs/models.schema.json.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	const path = "../../docs/models.schema.json"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("models.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("models.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCatalogueFollowsSchema(t *testing.T) {
	s := schema(t)
	data, err := os.ReadFile("../../models.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
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
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(text)))
		if err != nil {
			t.Fatal(err)
		}
		if s.Validate(doc) == nil {
			t.Errorf("%s: %s passes", name, text)
		}
	}
}
