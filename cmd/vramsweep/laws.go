package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/vramsweep/vramsweep/sweep"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// lawsFolder is where the user's laws lie: $XDG_CONFIG_HOME/vramsweep/laws, else
// ~/.config/vramsweep/laws.
func (w *world) lawsFolder() (string, error) {
	if base := w.getenv("XDG_CONFIG_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "vramsweep", "laws"), nil
	}
	if home := w.getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".config", "vramsweep", "laws"), nil
	}
	return "", usageError("Name a file with --output.",
		"laws have no folder: neither XDG_CONFIG_HOME nor HOME is an absolute path")
}

// laws are those that the package ships with the user's laid over them, and last
// those of a named file.
func (w *world) laws(plan *sweep.Plan, file string) (*models.Laws, error) {
	var files []string
	if folder, err := w.lawsFolder(); err == nil {
		files, _ = filepath.Glob(filepath.Join(folder, "*.json"))
		slices.Sort(files)
	}
	if file != "" {
		files = append(files, w.path(file))
	}
	set := models.ShippedLaws()
	for _, name := range files {
		f, err := readLaws(name)
		switch {
		case err != nil:
			return nil, err
		case f.Synthetic && !simulatorAlone(plan):
			return nil, usageError("Take it away, or measure with vramsweep calibrate on a GPU.",
				"%s: these laws are a simulator's; profiles of a real engine are not planned by them", name)
		}
		f.Where = name
		if set, err = set.With(f); err != nil {
			return nil, usageError("", "%s: %w", name, err)
		}
	}
	return set, nil
}

func simulatorAlone(plan *sweep.Plan) bool {
	return !slices.ContainsFunc(plan.Sweeps, func(s *sweep.Sweep) bool {
		return slices.ContainsFunc(s.Profiles, func(p *sweep.Profile) bool { return p.Engine.Kind != "simulator" })
	})
}

// readLaws reads one laws file.
func readLaws(name string) (*models.LawFile, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, usageError("vramsweep calibrate writes one.", "%w", err)
	}
	set, err := models.ParseLaws(data)
	if err != nil {
		return nil, usageError("vramsweep calibrate writes such files.", "%s: %w", name, err)
	}
	return set.Files()[0], nil
}

// keepLaws writes a laws file whole or not at all. Only laws of the same vLLM
// and GPU give way to it.
func keepLaws(name string, laws *models.LawFile) error {
	switch old, err := readLaws(name); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return usageError("Name another file with --output.", "%s is there, and is no laws file: %w", name, err)
	case old.VLLM != laws.VLLM || old.GPU != laws.GPU || old.Synthetic != laws.Synthetic:
		return usageError("Name another file with --output.",
			"%s is there, with laws of vLLM %s on %s; expected those of vLLM %s on %s, which these would replace",
			name, old.VLLM, old.GPU, laws.VLLM, laws.GPU)
	}
	data, err := laws.Marshal()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(name), 0o755)
	}
	if err != nil {
		return fmt.Errorf("write laws: %w", err)
	}
	return replaceFile(name, data)
}
