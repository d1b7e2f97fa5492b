package simulate

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/vramsweep/vramsweep/sweep/models"
)

// FindGPU finds a GPU of the catalogue by its name.
func FindGPU(name string) (models.GPU, error) {
	if name == "" {
		name = DefaultGPU
	}
	if gpu, ok := models.LookupGPU(name); ok {
		return gpu, nil
	}
	var names []string
	for _, g := range models.GPUs() {
		names = append(names, g.Name)
	}
	return models.GPU{}, fmt.Errorf("the simulator knows no GPU %q; expected one of %s", name, strings.Join(names, ", "))
}

// entryOf writes an architecture as an entry of a catalogue.
func entryOf(a *models.Architecture) (json.RawMessage, error) {
	if a == nil {
		return nil, nil
	}
	entry, err := a.MarshalEntry()
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", a.ID, err)
	}
	return entry, nil
}

// modelOf reads such an entry.
func modelOf(entry json.RawMessage) (*models.Architecture, error) {
	catalogue, err := models.ParseCatalogue([]byte(`{"schema":"` + models.CatalogueSchema + `","models":[` + string(entry) + `]}`))
	if err != nil {
		return nil, fmt.Errorf("model of the simulator: %w", err)
	}
	for _, name := range catalogue.Names() {
		if a, ok := catalogue.Lookup(name); ok {
			return a, nil
		}
	}
	return nil, errors.New("model of the simulator: an empty entry")
}

// estimateFor asks the arithmetic what a request will need.
func estimateFor(c *Config, r *request) models.Estimate {
	a := c.Model
	params, _ := models.Params(a)
	v := func(n int64) models.Figure { return models.Figure{Value: &n} }
	kv := a.NumLayers * 2 * max(a.NumKVHeads/r.tp, 1) * a.HeadDim * 2
	return models.Estimate{Weights: v(params * 2 / r.tp), KVBytesPerToken: &kv, ModelRunner: "v2"}
}
