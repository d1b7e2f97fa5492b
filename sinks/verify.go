package sinks

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/sinks/table"
)

// A Fault is something in an output folder that is not as it was written.
type Fault struct {
	File  string `json:"file"`  // relative to the output folder
	Place string `json:"place"` // "row group 3, column power_w", "line 12", ...; "" for the file as a whole
	What  string `json:"what"`
}

func (f Fault) String() string {
	if f.Place == "" {
		return f.File + ": " + f.What
	}
	return f.File + ": " + f.Place + ": " + f.What
}

// Verify reads everything in the folder: every page of every Parquet file, the
// checksums of timelines and raw logs, every JSON; it checks that no row is there
// twice, that tables and JSON say the same, and that nothing was left half done. No fault
// is an empty slice. The error says that the folder itself cannot be read. Beside a
// running sweep its unfinished run is no fault.
func (s *Store) Verify() ([]Fault, error) {
	v := &verifier{s: s, live: s.lock == nil && s.lockedByOther()}
	executions, err := s.f.dirs(runsDir)
	err = errors.Join(err, v.leftovers("."))
	v.executions(executions)
	for _, execution := range executions {
		runs, rerr := s.runs(execution)
		err = errors.Join(err, rerr)
		for _, rel := range runs {
			v.run(rel)
		}
	}
	if err != nil {
		return nil, s.f.explain("verifying", err)
	}
	for _, t := range registry() {
		t.verify(v, executions)
	}
	slices.SortStableFunc(v.faults, func(a, b Fault) int { return strings.Compare(a.File, b.File) })
	return v.faults, nil
}

type verifier struct {
	s      *Store
	live   bool // somebody runs a sweep in the folder
	faults []Fault
}

func (v *verifier) fault(file, place, format string, args ...any) {
	v.faults = append(v.faults, Fault{File: file, Place: place, What: fmt.Sprintf(format, args...)})
}

// failed names what could not be read, and says whether there is such.
func (v *verifier) failed(file string, err error) bool {
	if err != nil {
		v.fault(file, "", "%v", err)
	}
	return err != nil
}

// leftovers names temporary files, wherever they lie.
func (v *verifier) leftovers(dir string) error {
	entries, err := v.s.f.list(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), tmpMark) || name == stagingDir:
			if !v.live {
				v.fault(name, "", "a temporary file that was left; `vramsweep recover` removes it")
			}
		case e.Type()&fs.ModeSymlink != 0:
			v.fault(name, "", "a symbolic link; vramsweep makes none and follows none when it writes")
		case e.IsDir():
			if err := v.leftovers(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *verifier) executions(folders []string) {
	ids, err := v.s.executionIDs()
	v.failed(executionsDir, err)
	for _, id := range ids {
		e, err := v.s.Execution(id)
		if v.failed(executionFile(id), err) || !slices.Contains(folders, id) {
			continue
		}
		for _, part := range partsOf(e) {
			if part.State == StateComplete {
				v.counted(part)
			}
		}
	}
	for _, id := range folders {
		if !slices.Contains(ids, id) {
			v.fault(executionFile(id), "", "it is missing, but there are runs of this execution")
		}
	}
}

// counted checks that each run that was planned has its result.
func (v *verifier) counted(e *Execution) {
	runs, err := v.s.runsOf(e)
	v.failed(runsDir+"/"+e.ID, err)
	finished := 0
	for _, rel := range runs {
		if v.s.f.exists(rel + "/" + resultName) {
			finished++
		}
	}
	if finished < e.Runs {
		v.fault(runsDir+"/"+e.ID, "", "%d of %d runs have a run.json, but the execution %s is complete", finished, e.Runs,
			fileName(e.ID, e.Shard))
	}
}

// run checks one run's folder and its earlier attempts.
func (v *verifier) run(rel string) {
	finished := v.s.f.exists(rel + "/" + resultName)
	for _, name := range []string{journalName, journalIndex, jobName} {
		if v.s.f.exists(rel+"/"+name) && !v.live {
			what := "the run was cut off; `vramsweep recover` keeps its samples, `run --resume` repeats it"
			if finished {
				what = "it was left by a run that is finished; `vramsweep recover` removes it"
			}
			v.fault(rel+"/"+name, "", "%s", what)
		}
	}
	if finished {
		v.result(rel)
	} else if !v.live && !v.s.f.exists(rel+"/"+jobName) && !v.s.f.exists(rel+"/"+journalName) && !v.due(rel) {
		v.fault(rel+"/"+resultName, "", "it is missing")
	}
	attempts, err := v.s.attempts(rel)
	v.failed(rel+"/"+attemptsDir, err)
	for _, n := range attempts {
		v.result(rel + "/" + attemptsDir + "/" + n)
	}
}

// due says whether a run without run.json is one that was cut off and waits for
// the execution to go on.
func (v *verifier) due(rel string) bool {
	e, err := v.s.Execution(path.Base(path.Dir(rel)))
	attempts, aerr := v.s.attempts(rel)
	return err == nil && aerr == nil && e.State != StateComplete && len(attempts) > 0
}

// result checks a run.json and the files that it names.
func (v *verifier) result(dir string) {
	v.faults = append(v.faults, v.s.damage(dir)...)
	if r, err := v.s.result(dir); err == nil {
		for _, what := range r.Unexplained() {
			v.fault(dir+"/"+resultName, "memory_breakdown", "%s; `vramsweep reparse` attributes the run anew", what)
		}
	}
	if name := dir + "/" + timelineName; v.s.f.exists(name) {
		v.faults = append(v.faults, v.s.checkPages(name)...)
	}
}

// checkPages reads every page of a Parquet file.
func (s *Store) checkPages(name string) (faults []Fault) {
	err := s.openTable(name, func(f *table.File) error {
		for _, flaw := range f.Check() {
			faults = append(faults, Fault{File: name, Place: flaw.Place, What: flaw.What})
		}
		return nil
	})
	if err != nil {
		faults = append(faults, Fault{File: name, What: strings.ReplaceAll(errors.Unwrap(err).Error(), "\n", "; ")})
	}
	return faults
}
