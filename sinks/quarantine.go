package sinks

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"path"
	"slices"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// damagedDir is where files go that are not as they were written. Nothing in it is deleted or read again.
const damagedDir = "damaged"

// setAside moves a file or a folder of the output folder to damagedDir, under its own path, and says where to.
func (s *Store) setAside(name string) (string, error) {
	to := damagedDir + "/" + s.now().UTC().Format("20060102T150405Z") + "/" + name
	for s.f.exists(to) {
		to += "+"
	}
	if err := s.f.mkdir(path.Dir(to)); err != nil {
		return "", err
	}
	return to, s.f.rename(name, to)
}

// Quarantine reads every run of the folder and sets aside those with a damaged file: they are due again. An
// execution's file that is damaged is made again from its runs, as far as they know it. Tables are brought up to date;
// Rebuild sets damaged ones aside.
func (s *Store) Quarantine(report *Recovery) error {
	if err := s.writable(); err != nil {
		return err
	}
	err := s.remakeExecutions(report)
	folders, lerr := s.f.dirs(runsDir)
	for _, execution := range folders {
		lerr = errors.Join(lerr, s.quarantine(execution, report))
	}
	return s.f.explain("setting damaged runs aside", errors.Join(err, lerr))
}

func (s *Store) quarantine(execution string, report *Recovery) error {
	runs, err := s.runs(execution)
	lost := 0
	for _, rel := range runs {
		dirs := []string{rel}
		attempts, aerr := s.attempts(rel)
		err = errors.Join(err, aerr)
		for _, n := range attempts {
			dirs = append(dirs, rel+"/"+attemptsDir+"/"+n)
		}
		for i, dir := range slices.Backward(dirs) { // the run itself last
			if !s.f.exists(dir + "/" + resultName) {
				continue
			}
			faults := s.damage(dir)
			if len(faults) == 0 {
				continue
			}
			to, merr := s.setAside(dir)
			err = errors.Join(err, merr)
			if i == 0 {
				lost++
			}
			report.SetAside = append(report.SetAside, Damaged{To: to, Faults: faults})
		}
	}
	if lost == 0 || err != nil {
		return err
	}
	e, err := s.Execution(execution)
	if err != nil {
		return err
	}
	if e.State == StateComplete {
		e.State = StateInterrupted // `run --resume` repeats what was set aside
		err = s.writeExecution(e)
	}
	return errors.Join(err, s.publishNow(e, false))
}

// remakeExecutions makes the files of executions again that cannot be read.
func (s *Store) remakeExecutions(report *Recovery) error {
	ids, err := s.executionIDs()
	for _, id := range ids {
		if _, rerr := s.Execution(id); rerr != nil && !errors.Is(rerr, errNoExecution) && s.f.exists(executionFile(id)) {
			err = errors.Join(err, s.remakeExecution(id, rerr, report))
		}
	}
	return err
}

func (s *Store) remakeExecution(id string, why error, report *Recovery) error {
	to, err := s.setAside(executionFile(id))
	if err != nil {
		return err
	}
	report.SetAside = append(report.SetAside,
		Damaged{To: to, Faults: []Fault{{File: executionFile(id), What: why.Error()}}})
	e := &Execution{ID: id, State: StateInterrupted, Version: s.opts.Version}
	plan := map[runner.PlannedProfile]int{} // and its repeats
	runs, err := s.runs(id)
	for _, rel := range runs {
		r, rerr := s.result(rel)
		if rerr != nil {
			continue // it is set aside next
		}
		if e.Runs++; e.StartedAt.IsZero() || r.Run.StartedAt.Before(e.StartedAt) {
			e.StartedAt = r.Run.StartedAt
		}
		e.Host, e.Synthetic = cmp.Or(e.Host, r.Provenance.Host), e.Synthetic || r.Run.Synthetic
		p := runner.PlannedProfile{ID: r.Run.ProfileID, Sweep: r.Run.Sweep}
		plan[p] = max(plan[p], r.Run.Repeat)
	}
	if err != nil || e.Runs == 0 {
		return err
	}
	if at, perr := time.Parse("20060102T150405Z", id[:min(len(id), 16)]); perr == nil {
		e.StartedAt = at // as its tables are filed
	}
	var list []runner.PlannedProfile
	for p, n := range plan {
		p.Repeats = n
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b runner.PlannedProfile) int {
		return cmp.Or(cmp.Compare(a.Sweep, b.Sweep), cmp.Compare(a.ID, b.ID))
	})
	if e.Plan, err = json.Marshal(list); err != nil {
		return err
	}
	return s.writeExecution(e)
}

// wornOut reports whether the run that stands in a folder is damaged: then it is no attempt to keep.
func (s *Store) wornOut(rel string) bool {
	return s.f.exists(rel+"/"+resultName) && len(s.damage(rel)) > 0
}

// Damaged is what was moved to damagedDir, and why.
type Damaged struct {
	To     string  `json:"to"` // relative to the output folder
	Faults []Fault `json:"faults"`
}

// onlyDamage reports whether an error says no more than that damaged files were left out.
func onlyDamage(err error) bool {
	return err == nil || errors.As(err, new(*DamagedError)) && !errors.As(err, new(*fs.PathError))
}
