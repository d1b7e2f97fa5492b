package analyze

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sinks"
)

// baselineVersion of the file's format; it changes where an older reader would
// read a newer file wrongly.
const baselineVersion = 1

// ErrBaseline says that a baseline file cannot be read.
var ErrBaseline = errors.New("no readable baseline")

// BaselineInfo is what a baseline says of itself.
type BaselineInfo struct {
	Version string   // of vramsweep
	From    []string // folders and executions that it was taken from
	Now     time.Time
}

// A baselineFile holds what Compare needs of runs, and nothing else: one
// profile a line group, one run a line, so that a baseline under version
// control shows what moved.
type baselineFile struct {
	Format    int               `json:"vramsweep_baseline"`
	Schema    string            `json:"schema_version"`
	Vramsweep string            `json:"vramsweep_version"`
	Written   string            `json:"written"` // UTC
	From      []string          `json:"from"`
	Synthetic bool              `json:"synthetic"`
	Contexts  []columnValues    `json:"contexts"` // versions and machines, by their place
	Profiles  []baselineProfile `json:"profiles"`
}

type baselineProfile struct {
	Settings columnValues   `json:"settings"` // profile_id among them; what was left to vLLM is not there
	Axes     map[string]any `json:"axes,omitempty"`
	Runs     []baselineRun  `json:"runs"`
}

type baselineRun struct {
	Run     columnValues `json:"run"`
	Context int          `json:"context"` // place in contexts
	Figures columnValues `json:"figures"`
}

// columnValues are columns of a row that are not null, by name.
type columnValues map[string]json.RawMessage

// The columns of the runs table that a baseline keeps.
func baselineSettings() []string {
	return append([]string{"profile_id"}, settingNames()...)
}

func baselineContext() []string {
	names := slices.Clone(contextColumns())
	names[slices.Index(names, "gpu")] = "gpu_name"
	return append(names, "gpu_count")
}

func baselineIdentity() []string {
	return []string{"run_id", "execution", "repeat", "outcome", "outcome_detail"}
}

func figureNames() []string {
	var names []string
	for _, f := range Figures() {
		names = append(names, f.Name)
	}
	return names
}

// rowFields are the fields of a row by the names of their columns.
func rowFields() map[string][]int {
	fields := map[string][]int{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[sinks.RunRow]()) {
		name, _, _ := strings.Cut(f.Tag.Get("parquet"), ",")
		if !f.Anonymous && name != "" && name != "-" {
			fields[name] = f.Index
		}
	}
	return fields
}

// take reads columns of a row; nulls and empty words are left out.
func take(row reflect.Value, fields map[string][]int, names []string) (columnValues, error) {
	out := columnValues{}
	for _, name := range names {
		v := row.FieldByIndex(fields[name])
		if v.IsZero() { // null, too
			continue
		}
		text, err := json.Marshal(v.Interface())
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", name, err)
		}
		out[name] = text
	}
	return out, nil
}

// put sets columns of a row. A column that this version does not know is an
// error, unless it is a new figure: without a setting profiles would be taken
// for each other, without a figure it is only not compared.
func (c columnValues) put(row reflect.Value, fields map[string][]int, names []string, strict bool) error {
	for _, name := range sortedKeys(c) {
		if !slices.Contains(names, name) {
			if strict {
				return fmt.Errorf("it has a column %q that this vramsweep does not know: it was written by a newer one", name)
			}
			continue
		}
		if err := json.Unmarshal(c[name], row.FieldByIndex(fields[name]).Addr().Interface()); err != nil {
			return fmt.Errorf("column %s: %w", name, err)
		}
	}
	return nil
}

// WriteBaseline writes what Compare needs of runs as one file: comparing with
// the file gives what comparing with the rows gives. It fails with ErrNoRuns
// and ErrMixed.
func WriteBaseline(out io.Writer, rows []sinks.RunRow, about BaselineInfo) error {
	if len(rows) == 0 {
		return fmt.Errorf("baseline: %w", ErrNoRuns)
	}
	if err := sameKind(rows); err != nil {
		return fmt.Errorf("baseline: %w", err)
	}
	file := &baselineFile{Format: baselineVersion, Schema: runner.SchemaVersion, Vramsweep: about.Version,
		Written: about.Now.UTC().Format(time.RFC3339), From: about.From, Synthetic: rows[0].Synthetic}
	if err := file.add(rows); err != nil {
		return fmt.Errorf("baseline: %w", err)
	}
	return file.write(out)
}

// add puts rows together by their settings, in order of first appearance.
func (b *baselineFile) add(rows []sinks.RunRow) error {
	fields := rowFields()
	contexts, profiles := map[string]int{}, map[string]int{}
	for i := range rows {
		row := reflect.ValueOf(&rows[i]).Elem()
		var parts [4]columnValues
		for k, names := range [][]string{baselineSettings(), baselineContext(), baselineIdentity(), figureNames()} {
			var err error
			if parts[k], err = take(row, fields, names); err != nil {
				return fmt.Errorf("run %s: %w", rows[i].RunID, err)
			}
		}
		key, err := json.Marshal([]any{parts[0], rows[i].Axes})
		if err != nil {
			return fmt.Errorf("run %s: axes: %w", rows[i].RunID, err)
		}
		at, ok := profiles[string(key)]
		if !ok {
			at = len(b.Profiles)
			profiles[string(key)] = at
			b.Profiles = append(b.Profiles, baselineProfile{Settings: parts[0], Axes: rows[i].Axes})
		}
		context, err := json.Marshal(parts[1])
		if err != nil {
			return fmt.Errorf("run %s: %w", rows[i].RunID, err)
		}
		place, ok := contexts[string(context)]
		if !ok {
			place = len(b.Contexts)
			contexts[string(context)] = place
			b.Contexts = append(b.Contexts, parts[1])
		}
		b.Profiles[at].Runs = append(b.Profiles[at].Runs, baselineRun{Run: parts[2], Context: place, Figures: parts[3]})
	}
	return nil
}

// write prints the file with a line for each context, profile and run.
func (b *baselineFile) write(out io.Writer) error {
	w := &lines{out: out}
	text := func(v any) []byte {
		line, err := json.Marshal(v)
		if err != nil && w.err == nil {
			w.err = err
		}
		return line
	}
	end := func(i, n int) string {
		if i+1 == n {
			return "\n"
		}
		return ",\n"
	}
	w.printf("{\"vramsweep_baseline\":%d,\n\"schema_version\":%s,\n\"vramsweep_version\":%s,\n\"written\":%s,\n\"from\":%s,\n\"synthetic\":%t,\n\"contexts\":[\n",
		b.Format, text(b.Schema), text(b.Vramsweep), text(b.Written), text(b.From), b.Synthetic)
	for i, c := range b.Contexts {
		w.printf("%s%s", text(c), end(i, len(b.Contexts)))
	}
	w.printf("],\n\"profiles\":[\n")
	for i := range b.Profiles {
		p := &b.Profiles[i]
		w.printf("{\"settings\":%s", text(p.Settings))
		if len(p.Axes) > 0 {
			w.printf(",\"axes\":%s", text(p.Axes))
		}
		w.printf(",\"runs\":[\n")
		for k := range p.Runs {
			w.printf(" %s%s", text(p.Runs[k]), end(k, len(p.Runs)))
		}
		w.printf("]}%s", end(i, len(b.Profiles)))
	}
	w.printf("]}\n")
	if w.err != nil {
		return fmt.Errorf("writing the baseline: %w", w.err)
	}
	return nil
}

// IsBaseline tells by the first bytes of a file whether it means to be a baseline.
func IsBaseline(head []byte) bool {
	decoder := json.NewDecoder(bytes.NewReader(head))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return false
	}
	key, err := decoder.Token()
	return err == nil && key == "vramsweep_baseline"
}

// ReadBaseline reads a file of WriteBaseline: rows that hold what Compare
// needs, and nothing else. It fails with ErrBaseline.
func ReadBaseline(in io.Reader) ([]sinks.RunRow, error) {
	decoder := json.NewDecoder(in)
	decoder.UseNumber() // axes: 1 is whole, 1.5 is not
	var file baselineFile
	if err := decoder.Decode(&file); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBaseline, err)
	}
	if file.Format != baselineVersion {
		return nil, fmt.Errorf("%w: its format is %d, this vramsweep reads %d: save it again with `vramsweep compare save`", ErrBaseline, file.Format, baselineVersion)
	}
	rows, err := file.rows()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBaseline, err)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%w: it holds no runs", ErrBaseline)
	}
	return rows, nil
}

func (b *baselineFile) rows() ([]sinks.RunRow, error) {
	fields := rowFields()
	seen := map[string]bool{}
	var rows []sinks.RunRow
	for i := range b.Profiles {
		p := &b.Profiles[i]
		axes, err := axisValues(p.Axes)
		if err != nil {
			return nil, fmt.Errorf("profile %d: %w", i+1, err)
		}
		for k := range p.Runs {
			var row sinks.RunRow
			if err := b.fill(&row, p, &p.Runs[k], fields); err != nil {
				return nil, fmt.Errorf("profile %d, run %d: %w", i+1, k+1, err)
			}
			if seen[row.RunID] {
				return nil, fmt.Errorf("profile %d, run %d: run_id %s stands in it twice", i+1, k+1, row.RunID)
			}
			seen[row.RunID] = true
			row.Axes, row.Synthetic = axes, b.Synthetic
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func (b *baselineFile) fill(row *sinks.RunRow, p *baselineProfile, run *baselineRun, fields map[string][]int) error {
	if run.Context < 0 || run.Context >= len(b.Contexts) {
		return fmt.Errorf("context %d: there are %d", run.Context, len(b.Contexts))
	}
	into := reflect.ValueOf(row).Elem()
	err := errors.Join(
		p.Settings.put(into, fields, baselineSettings(), true),
		b.Contexts[run.Context].put(into, fields, baselineContext(), true),
		run.Run.put(into, fields, baselineIdentity(), true),
		run.Figures.put(into, fields, figureNames(), false))
	if err != nil {
		return err
	}
	for name, v := range map[string]string{"run_id": row.RunID, "profile_id": row.ProfileID, "outcome": row.Outcome} {
		if v == "" {
			return fmt.Errorf("%s is missing", name)
		}
	}
	return nil
}

// axisValues turns the numbers of axes into what the tables hold.
func axisValues(axes map[string]any) (map[string]any, error) {
	if len(axes) == 0 {
		return nil, nil
	}
	out := make(map[string]any, len(axes))
	for name, v := range axes {
		switch v := v.(type) {
		case string, bool:
			out[name] = v
		case json.Number:
			if whole, err := v.Int64(); err == nil {
				out[name] = whole
				continue
			}
			f, err := v.Float64()
			if err != nil {
				return nil, fmt.Errorf("axis %s: %w", name, err)
			}
			out[name] = f
		default:
			return nil, fmt.Errorf("axis %s: %T is no value of an axis", name, v)
		}
	}
	return out, nil
}
