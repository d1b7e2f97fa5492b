package sweep

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/sweep/models"
)

// ModelBlock writes an architecture as a model block of a sweep file.
func ModelBlock(a *models.Architecture) ([]byte, error) {
	data, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("model block of %s: %w", a.ID, err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var fields map[string]any
	if err := decoder.Decode(&fields); err != nil {
		return nil, fmt.Errorf("model block of %s: %w", a.ID, err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "model %s {\n  hf_model_id = %s\n", strconv.Quote(a.ID), hclText(a.HFModelID))
	for _, name := range sortedKeys(fields) {
		switch name {
		case "id", "source", "hf_model_id", "published": // the block's own, and where a count was looked up
		default:
			fmt.Fprintf(&out, "%s = %s\n", name, hclValue(fields[name]))
		}
	}
	out.WriteString("}\n")
	return Format(a.ID, []byte(out.String()))
}

// hclValue writes plain data of JSON in native syntax.
func hclValue(v any) string {
	switch x := v.(type) {
	case string:
		return hclText(x)
	case []any:
		parts := make([]string, len(x))
		for i := range x {
			parts[i] = hclValue(x[i])
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		var parts []string
		for _, key := range sortedKeys(x) {
			parts = append(parts, key+" = "+hclValue(x[key]))
		}
		return "{ " + strings.Join(parts, ", ") + " }"
	}
	return fmt.Sprint(v)
}

// hclText quotes a text so that nothing in it is a template.
func hclText(s string) string {
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(strconv.Quote(s))
}
