package gpu

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/sampling"
)

func recorded(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "h100x2-580", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestH100Verbs reads what `gpus --json` and `doctor --json` said there.
func TestH100Verbs(t *testing.T) {
	t.Parallel()
	var gpus struct {
		Devices []runner.Device `json:"devices"`
		Sources []SourceStatus  `json:"sources"`
	}
	if err := json.Unmarshal(recorded(t, "gpus.json"), &gpus); err != nil {
		t.Fatal(err)
	}
	if len(gpus.Devices) != 2 || gpus.Devices[1].Index != 1 || *gpus.Devices[1].TotalBytes != 81559<<20 || *gpus.Devices[1].ReservedBytes != 480<<20 {
		t.Errorf("devices %+v", gpus.Devices)
	}
	for _, s := range gpus.Sources {
		nvidia := vendorOf(s.Name) == "nvidia"
		if s.Works != nvidia || s.Used != (s.Name == sampling.SourceNVML) || !s.Works && s.Reason == "" || nvidia && s.Power != sampling.PowerInstant {
			t.Errorf("source %+v", s)
		}
	}
	var findings []Finding
	if err := json.Unmarshal(recorded(t, "doctor.json"), &findings); err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		if (f.Status == StatusFail || f.Status == StatusWarn) && f.Fix == "" {
			t.Errorf("no fix: %+v", f)
		}
	}
	for _, name := range []string{"GPU 0 persistence", "GPU 1 ECC", "GPU 0 use", "rights", "visible GPUs"} {
		if f := finding(findings, name); f.Status == "absent" {
			t.Errorf("no finding %q", name)
		}
	}
}
