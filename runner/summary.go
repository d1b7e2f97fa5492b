package runner

import "time"

// A Summary is what an execution came to: one JSON object on one line
// (run --summary-json).
type Summary struct {
	Execution   string          `json:"execution"`
	State       ExecutionState  `json:"state"`
	StartedAt   time.Time       `json:"started_at"` // of this go
	EndedAt     time.Time       `json:"ended_at"`
	WallS       float64         `json:"wall_s"`
	Planned     int             `json:"planned"`              // profiles x repeats
	Kept        int             `json:"kept"`                 // finished in an earlier go
	Ran         int             `json:"ran"`                  // in this go, skipped ones not counted
	Remaining   int             `json:"remaining"`            // due at the next --resume
	OK          int             `json:"ok"`                   // of all rows, those kept included, as the next three
	Failed      int             `json:"failed"`               //
	Skipped     int             `json:"skipped"`              //
	Outcomes    map[Outcome]int `json:"outcomes"`             //
	Lanes       int             `json:"lanes,omitempty"`      // runs that could go on side by side
	Retried     int             `json:"retried"`              // attempts that were repeated
	Resumed     bool            `json:"resumed"`              // an earlier execution went on
	AlreadyDone bool            `json:"already_done"`         // --resume found it complete
	StoppedBy   string          `json:"stopped_by,omitempty"` // why it ended before its time
	Interrupted bool            `json:"interrupted"`
	Changes     []PlanChange    `json:"plan_changes,omitempty"`
	Ended       []Process       `json:"ended_processes,omitempty"` // left by a killed runner or by runs
	OverheadS   float64         `json:"overhead_s"`                // mean per run: vramsweep's own share
	Synthetic   bool            `json:"synthetic"`
	Error       string          `json:"error,omitempty"`
}

// ExitCode is the exit code of `run`: 0 all measured, or complete already; 3 some runs failed, 130
// interrupted; 1 where the machine or vramsweep is at fault is the caller's, who
// has the error.
func (s *Summary) ExitCode() int {
	switch {
	case s.Error != "":
		return 1
	case s.AlreadyDone: // said so; what failed was told when it ran
		return 0
	case s.Interrupted:
		return 130
	case s.Failed > 0 || s.Remaining > 0:
		return 3
	}
	return 0
}

// A Display shows how an execution goes. Its methods are called one at a time
// and must not block for long.
type Display interface {
	// Begin says what is ahead.
	Begin(s *Schedule)
	// RunBegins is called for every run that will be measured.
	RunBegins(n int, job *Job)
	// Progress is called on changes of phase and about twice a second.
	Progress(p Progress)
	// RunEnds is called for every row, those of skipped runs included.
	RunEnds(n int, r *Result)
	// Note says something that the user should know now: who holds the GPU, a
	// retry.
	Note(text string)
}

// A Schedule is what an execution is going to do.
type Schedule struct {
	Execution string
	Runs      int // planned: profiles x repeats
	Kept      int // finished already
	Resumed   bool
	Changes   []PlanChange
}
