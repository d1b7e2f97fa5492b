package simulate

import (
	"os"
	"strings"
	"testing"

	"github.com/vramsweep/vramsweep/sweep/models"
)

// TestManual checks that the manual names all that can be planted.
func TestManual(t *testing.T) {
	data, err := os.ReadFile("../../docs/simulator.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	for _, name := range append(Components(), Misbehaviours()...) {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/simulator.md does not name %q", name)
		}
	}
	for _, p := range phases() {
		if !strings.Contains(page, string(p)) {
			t.Errorf("docs/simulator.md does not name the phase %q", p)
		}
	}
	for _, text := range append(knownVersions(), DefaultGPU, DefaultVersion, EnvConfig) {
		if !strings.Contains(page, text) {
			t.Errorf("docs/simulator.md does not name %q", text)
		}
	}
}

// TestVersionOfThePlan: what a plan assumes where no version is named is what is simulated.
func TestVersionOfThePlan(t *testing.T) {
	if models.NewestVersion != DefaultVersion {
		t.Errorf("the arithmetic assumes %s, the simulator is %s", models.NewestVersion, DefaultVersion)
	}
}
