package simulate

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/vramsweep/vramsweep/sweep/models"
)

// FindGPU finds a GPU of the catalogue by its name.
func FindGPU(name string) (models.GPU, error) {
	if gpu, ok := models.LookupGPU(cmp.Or(name, DefaultGPU)); ok {
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
	catalogue, err := models.ParseCatalogue(
		[]byte(`{"schema":"` + models.CatalogueSchema + `","models":[` + string(entry) + `]}`))
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
	return models.NewEstimate(c.Model, models.Request{
		Dtype: r.dtype, KVCacheDtype: r.kvDtype, Quantization: r.quantization,
		TensorParallelSize: r.tp, PipelineParallelSize: r.pp,
		InputLen: r.inputLen, OutputLen: r.outputLen, BatchSize: r.batchSize, MaxModelLen: r.maxLen, MaxNumSeqs: r.maxSeqs,
		MaxNumBatchedTokens: r.maxTokens, GPUMemoryUtilization: r.util, KVCacheMemoryBytes: r.kvBytes, BlockSize: r.blockSize,
		EnforceEager: r.eager, Version: c.words.version, ModelRunner: c.ModelRunner, Defaults: c.Defaults,
	}, *c.GPU)
}
