package calibrate

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/recorded"
	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sweep/models"
)

var update = flag.Bool("update", false, "write the shipped laws of the recording anew")

// recording are the runs of the recording on an H200.
func recording(t testing.TB, hold ...string) *Runs {
	t.Helper()
	store, err := sinks.View(recorded.Folder(t, "h200-v0.33"), sinks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	runs, err := Read(store, hold, func(r *runner.Result) *models.Architecture {
		name := filepath.Base(r.ModelInfo.Model)
		config, err := os.Open("models/" + name + ".json")
		if err != nil {
			config, err = os.Open("../../../sweep/models/testdata/h200-v0.33/" + name + ".json")
		}
		if err != nil {
			t.Fatal(err)
		}
		defer config.Close()
		a, err := models.FromConfig(config, name)
		if err != nil {
			t.Fatal(err)
		}
		return a
	})
	if err != nil {
		t.Fatal(err)
	}
	return runs
}

const shipped = "../../../sweep/models/laws/h200-v0.33.json"

// TestLawsAreFitted holds the shipped laws of 0.33 to the recording that they are
// of; with -update it writes them. `make laws` does.
func TestLawsAreFitted(t *testing.T) {
	c, err := Calibrate(recording(t), models.ShippedLaws(), "vramsweep", "runner/recorded, h200-v0.33")
	if err != nil {
		t.Fatal(err)
	}
	data, err := c.Laws.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(shipped, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have, err := os.ReadFile(shipped); err != nil || string(have) != string(data) {
		t.Errorf("%s is not what the recording gives (%v): make laws", shipped, err)
	}
	for _, s := range c.Checked {
		t.Logf("%+v", *s)
	}
}
