package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks"
)

// An executionStatus is how far an execution is, by what its folder holds.
type executionStatus struct {
	Execution string                 `json:"execution"`
	State     string                 `json:"state"`
	Planned   int                    `json:"planned"`
	Done      int                    `json:"done"`
	Failed    int                    `json:"failed"` // of those done
	Due       int                    `json:"due"`    // of the shards that have begun
	Missing   []string               `json:"missing_shards"`
	Outcomes  map[runner.Outcome]int `json:"outcomes"`
	Shards    []shardStatus          `json:"shards,omitempty"`
	Differ    map[string][]string    `json:"differ,omitempty"` // versions that its runs do not have in common
}

// A shardStatus is one of its shards.
type shardStatus struct {
	Shard   string    `json:"shard"`
	State   string    `json:"state"` // running, killed, interrupted, complete
	Host    string    `json:"host"`
	Begun   time.Time `json:"started_at"`
	Planned int       `json:"planned"`
	Done    int       `json:"done"`
	Failed  int       `json:"failed"`
}

// statusVerb says how far an execution is.
func (w *world) statusVerb() *cobra.Command {
	var execution string
	cmd := jsonVerb("status DIR", "How far an execution is: runs done, due and failed, shards that are missing",
		exactArgs("DIR"), func(_ *cobra.Command, args []string, asJSON bool) error {
			return viewStore(args[0], func(store *sinks.Store) error { return w.status(store, execution, asJSON) })
		})
	cmd.Long = `How far an execution is, by the files of its folder: it asks no runner and may be
called from any host that has the folder. A shard that is noted as running while
nobody holds its lock was killed: start its element again, with --resume.

Exit 0: complete, and no run failed; 3: not complete, or runs failed.`
	cmd.Flags().StringVar(&execution, "execution", "", "which one; default: the last")
	return cmd
}

func (w *world) status(store *sinks.Store, name string, asJSON bool) error {
	all, err := store.Executions()
	if err != nil {
		return err
	}
	i := len(all) - 1
	if name != "" && name != "last" {
		i = slices.IndexFunc(all, func(e *sinks.Execution) bool { return e.ID == name })
	}
	if i < 0 {
		return usageError(w.executionsHint(store.Dir()), "%s: there is no execution %s", store.Dir(), cmp.Or(name, "in it"))
	}
	s, err := statusOf(store, all[i])
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(w.stdout, s)
	} else {
		err = s.text(w.stdout)
	}
	if err == nil && (s.State != string(runner.StateComplete) || s.Failed > 0) {
		return quiet(exitSomeFailed)
	}
	return err
}

func statusOf(store *sinks.Store, e *sinks.Execution) (*executionStatus, error) {
	results, err := store.Finished(e.ID)
	if err != nil {
		return nil, err
	}
	s := &executionStatus{Execution: e.ID, State: stateOf(store, e), Planned: e.Runs, Missing: []string{},
		Outcomes: map[runner.Outcome]int{}, Differ: map[string][]string{}}
	seen := map[string]map[string]bool{"vLLM": {}, "driver": {}}
	byShard := map[string]*shardStatus{}
	for _, part := range e.Shards {
		s.Shards = append(s.Shards, shardStatus{Shard: part.Shard, State: stateOf(store, part), Host: part.Host,
			Begun: part.StartedAt, Planned: part.Runs})
	}
	for i := range s.Shards {
		byShard[s.Shards[i].Shard] = &s.Shards[i]
	}
	for _, r := range results {
		if r.Run.Outcome == runner.OutcomeDirtyGPU && e.State != runner.StateComplete {
			continue // due again
		}
		s.Done++
		s.Outcomes[r.Run.Outcome]++
		shard := cmp.Or(byShard[r.Run.Shard], &shardStatus{})
		shard.Done++
		if r.Run.Outcome.Failed() {
			s.Failed++
			shard.Failed++
		}
		note(seen["vLLM"], r.EngineMetadata.VLLMVersion)
		note(seen["driver"], r.Provenance.DriverVersion)
	}
	s.Due = max(s.Planned-s.Done, 0)
	for what, versions := range seen {
		if len(versions) > 1 {
			s.Differ[what] = slices.Sorted(maps.Keys(versions))
		}
	}
	if _, n := e.ShardOf(); n > 0 {
		for i := 1; i <= n; i++ {
			if name := fmt.Sprintf("%d/%d", i, n); byShard[name] == nil {
				s.Missing = append(s.Missing, name)
			}
		}
	}
	return s, nil
}

func note(seen map[string]bool, version *string) {
	if version != nil {
		seen[*version] = true
	}
}

// stateOf tells a runner that was killed from one that runs.
func stateOf(store *sinks.Store, e *sinks.Execution) string {
	if e.State != runner.StateRunning {
		return string(e.State)
	}
	for _, part := range e.Shards {
		if part.State == runner.StateRunning && store.Held(part) {
			return string(runner.StateRunning)
		}
	}
	if len(e.Shards) == 0 && store.Held(e) {
		return string(runner.StateRunning)
	}
	return "killed"
}

func (s *executionStatus) text(out io.Writer) error {
	fmt.Fprintf(out, "execution %s: %s; %d of %s done, %d due, %d failed\n", s.Execution, s.State, s.Done,
		plural(s.Planned, "run"), s.Due, s.Failed)
	for _, outcome := range slices.Sorted(maps.Keys(s.Outcomes)) {
		if outcome.Failed() {
			fmt.Fprintf(out, "  %d x %s\n", s.Outcomes[outcome], outcome)
		}
	}
	if len(s.Shards) > 0 {
		table := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
		fmt.Fprintln(table, "shard\tstate\tdone\tfailed\thost\tbegun")
		for _, shard := range s.Shards {
			fmt.Fprintf(table, "%s\t%s\t%d/%d\t%d\t%s\t%s\n", shard.Shard, shard.State, shard.Done, shard.Planned, shard.Failed,
				shard.Host, shard.Begun.UTC().Format(time.RFC3339))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	if len(s.Missing) > 0 {
		fmt.Fprintf(out, "missing: %s (not begun: their runs are not counted)\n", strings.Join(s.Missing, ", "))
	}
	for _, what := range slices.Sorted(maps.Keys(s.Differ)) {
		fmt.Fprintf(out, "note: its runs differ in %s: %s\n", what, strings.Join(s.Differ[what], ", "))
	}
	return nil
}
