package sinks

import (
	"errors"
	"io/fs"
	"path"

	"github.com/vramsweep/vramsweep/runner"
	vllmlog "github.com/vramsweep/vramsweep/runner/vllm/log"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// Measured prepares a finished run for another attribution: it reads the raw
// logs in its folder again and clears what an Attributor fills in r. dir is
// relative to the output folder. nil without an error: there is no log to read.
func (s *Store) Measured(dir string, r *runner.Result, catalogue *models.Catalogue) (*runner.Measured, error) {
	names := []string{"stdout.log", "stderr.log"} // of an imported run
	if len(r.RawLogs) > 0 {
		names = nil
	}
	for i := range r.RawLogs {
		names = append(names, path.Base(r.RawLogs[i].Path))
	}
	if faults := s.damage(dir); len(faults) > 0 { // nothing new is derived from it
		return nil, damaged(faults)
	}
	var readers []vllmlog.NamedReader
	for _, name := range names {
		file, err := s.f.open(dir + "/" + name)
		if errors.Is(err, fs.ErrNotExist) && len(r.RawLogs) == 0 {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer file.Close() //nolint:errcheck // only read from
		readers = append(readers, vllmlog.NamedReader{Name: name, R: file})
	}
	if len(readers) == 0 {
		return nil, nil
	}
	log, err := vllmlog.ReadLogs(readers...)
	if err != nil {
		return nil, err
	}
	var account *runner.Account
	if len(log.Accounts) > 0 {
		account = log.Accounts[len(log.Accounts)-1]
	}
	a, ok := catalogue.Lookup(r.ModelInfo.Model)
	if !ok {
		a, _ = catalogue.Lookup(r.ModelInfo.HFModelID)
	}
	return runner.Remeasure(r, a, account, log.Events, s.Samples(dir)), nil
}
