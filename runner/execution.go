package runner

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/sweep"
)

// ExecutionState says how far an execution got.
type ExecutionState string

// The states. An execution whose runner died stays "running".
const (
	StateRunning     ExecutionState = "running"
	StateInterrupted ExecutionState = "interrupted"
	StateComplete    ExecutionState = "complete"
)

// An Execution is one go of a sweep file, as History remembers it.
type Execution struct {
	ID        string          `json:"execution"`
	Sequence  int64           `json:"sequence,omitempty"` // in its folder, from 1: clocks are set; 0: of an earlier version
	State     ExecutionState  `json:"state"`
	StartedAt time.Time       `json:"started_at"` // its month is that of the tables
	EndedAt   *time.Time      `json:"ended_at"`
	ResumedAt []time.Time     `json:"resumed_at,omitempty"`
	Version   string          `json:"vramsweep_version"`
	Host      string          `json:"host"`
	Command   []string        `json:"command,omitempty"` // argv, secrets masked
	Files     []string        `json:"files,omitempty"`   // the sweep files
	Runs      int             `json:"runs"`              // planned: profiles x repeats
	Synthetic bool            `json:"synthetic"`
	Plan      json.RawMessage `json:"plan,omitempty"` // []PlannedProfile
	Summary   json.RawMessage `json:"summary,omitempty"`

	// Of a shard: which it is, as "3/6", and a digest of the whole plan.
	Shard  string `json:"shard,omitempty"`
	Digest string `json:"plan_digest,omitempty"`
	// Shards are the parts of an execution that is their union.
	Shards []*Execution `json:"-"`
}

// ShardOf is the shard's number, from 1, and how many there are; 0, 0: it is none.
func (e *Execution) ShardOf() (i, n int) {
	shard := e.Shard
	if len(e.Shards) > 0 {
		shard = e.Shards[0].Shard
	}
	if _, err := fmt.Sscanf(shard, "%d/%d", &i, &n); err != nil {
		return 0, 0
	}
	return i, n
}

// A History remembers executions from one process to the next; nil for a run
// that nothing is to be remembered of.
type History interface {
	// Executions are all of them, the oldest first.
	Executions() ([]*Execution, error)
	// Finished are the results of an execution by run id, without those that
	// were interrupted.
	Finished(execution string) (map[string]*Result, error)
	// BeginExecution notes that an execution starts or goes on.
	BeginExecution(e *Execution) error
	// FinishExecution brings the tables up to date and notes how it ended.
	FinishExecution(id string, state ExecutionState, summary any) error
}

// A PlannedProfile is a profile as an execution remembers it, to say later what
// a changed file changed.
type PlannedProfile struct {
	ID      string `json:"id"`
	Sweep   string `json:"sweep"`
	Repeats int    `json:"repeats"`
	Point   string `json:"point"`  // the axes: "model=tiny, input_len=512"
	Digest  string `json:"digest"` // over what the id leaves out, too: command, flags, environment
}

// planned lists the profiles of a plan in order.
func planned(plan *sweep.Plan) ([]PlannedProfile, error) {
	var list []PlannedProfile
	for _, s := range plan.Sweeps {
		for _, p := range s.Profiles {
			digest, err := digestOf(s, p)
			if err != nil {
				return nil, fmt.Errorf("profile %s of sweep %q: %w", p.ID, s.Name, err)
			}
			list = append(list, PlannedProfile{ID: p.ID, Sweep: s.Name, Repeats: repeats(s), Point: point(p), Digest: digest})
		}
	}
	return list, nil
}

// Digest is over the profiles of plans, in order, and which plan each is in: the
// same on every machine that cuts a plan in the same way.
func Digest(plans ...*sweep.Plan) string {
	sum := sha256.New()
	for i, plan := range plans {
		for _, s := range plan.Sweeps {
			for _, p := range s.Profiles {
				fmt.Fprintf(sum, "%d %s %s %d\n", i, s.Name, p.ID, repeats(s))
			}
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// A MismatchError says that an execution is not the one that is asked for.
type MismatchError struct{ Text string }

func (e *MismatchError) Error() string { return e.Text }

func repeats(s *sweep.Sweep) int { return max(s.Repeats, 1) }

// point writes the axes of a profile, in source order.
func point(p *sweep.Profile) string {
	parts := make([]string, len(p.Axes))
	for i, a := range p.Axes {
		v := fmt.Sprint(a.Value)
		if m, ok := a.Value.(map[string]any); ok {
			b, _ := json.Marshal(m) // plain data; sorted, unlike fmt of nested values
			v = string(b)
		}
		parts[i] = a.Axis + "=" + v
	}
	return strings.Join(parts, ", ")
}

func digestOf(s *sweep.Sweep, p *sweep.Profile) (string, error) {
	env := make([]string, len(s.Env))
	for i, e := range s.Env {
		env[i] = e.Name
		if !e.Sensitive {
			env[i] += "=" + e.Value
		}
	}
	b, err := json.Marshal(struct {
		Settings sweep.Settings
		Engine   sweep.Engine
		GPUs     []int
		Env      []string
	}{p.Settings, p.Engine, s.GPUs, env})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8]), nil
}

// A PlanChange says what became of a profile since the execution began.
type PlanChange struct {
	Change string `json:"change"` // "added", "removed", "changed"
	ID     string `json:"profile_id"`
	Was    string `json:"was,omitempty"` // changed: the earlier id, where it is another
	Sweep  string `json:"sweep"`
	Point  string `json:"point"`
}

// comparePlans lists what differs between the plan of an execution and that of
// now, in the order of now, the removed ones last. A profile is changed if the
// same point of the same sweep has another id, or the same id another command,
// flag, GPU or environment.
func comparePlans(before, now []PlannedProfile) []PlanChange {
	type place struct{ sweep, point string }
	byID, byPlace := map[string]PlannedProfile{}, map[place]PlannedProfile{}
	for _, p := range before {
		byID[p.ID] = p
		byPlace[place{p.Sweep, p.Point}] = p
	}
	kept, stays := map[string]bool{}, map[string]bool{}
	for _, p := range now {
		stays[p.ID] = true
	}
	var changes []PlanChange
	for _, p := range now {
		change := PlanChange{ID: p.ID, Sweep: p.Sweep, Point: p.Point}
		old, same := byID[p.ID]
		moved, there := byPlace[place{p.Sweep, p.Point}]
		kept[p.ID] = kept[p.ID] || same
		switch {
		case same && old.Digest == p.Digest:
			continue
		case same:
			change.Change = "changed"
		case there && !kept[moved.ID] && !stays[moved.ID]:
			kept[moved.ID] = true
			change.Change, change.Was = "changed", moved.ID
		default:
			change.Change = "added"
		}
		changes = append(changes, change)
	}
	for _, p := range before {
		if !kept[p.ID] {
			changes = append(changes, PlanChange{Change: "removed", ID: p.ID, Sweep: p.Sweep, Point: p.Point})
		}
	}
	return changes
}

// newExecutionID is a UTC time, which sorts, and a short hash, which keeps two
// executions of a second apart.
func newExecutionID(now time.Time, salt ...string) string {
	sum := sha256.Sum256([]byte(now.UTC().Format(time.RFC3339Nano) + "\x00" + strings.Join(salt, "\x00")))
	return now.UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(sum[:3])
}

// lastOf is the newest of executions; nil if there is none.
func lastOf(list []*Execution) *Execution {
	if len(list) == 0 {
		return nil
	}
	return slices.MaxFunc(list, func(a, b *Execution) int {
		return a.Compare(b)
	})
}

// Compare orders executions by when they were begun, whatever the clock said.
func (e *Execution) Compare(o *Execution) int {
	return cmp.Or(cmp.Compare(e.Sequence, o.Sequence), e.StartedAt.Compare(o.StartedAt), cmp.Compare(e.ID, o.ID))
}
