package compare

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
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
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

// A baseline holds what Run needs of runs, and nothing else: one profile a line
// group, one run a line, so that a baseline under version control shows what
// moved.
type baseline struct {
	Format    int       `json:"vramsweep_baseline"`
	Synthetic bool      `json:"synthetic"`
	Contexts  []columns `json:"contexts"` // versions and machines, by their place
	Profiles  []struct {
		Settings columns        `json:"settings"` // profile_id among them; what was left to vLLM is not there
		Axes     map[string]any `json:"axes"`
		Runs     []baselineRun  `json:"runs"`
	} `json:"profiles"`
}

type baselineRun struct {
	Run     columns `json:"run"`
	Context int     `json:"context"` // place in contexts
	Figures columns `json:"figures"`
}

// columns are those of a row that are not null, by name.
type columns map[string]any

// kept are the columns of the runs table that a baseline keeps.
func kept() (settings, context, identity []string) {
	context = append(frame.Context(), "gpu_count")
	context[slices.Index(context, "gpu")] = "gpu_name"
	return append([]string{"profile_id"}, frame.Settings()...), context,
		[]string{"run_id", "execution", "repeat", "outcome", "outcome_detail"}
}

// put sets columns of a row. A column that this version does not know is an
// error, unless it is a new figure: without a setting profiles would be taken
// for each other, without a figure it is only not compared.
func (c columns) put(row *sinks.RunRow, fields map[string][]int, names []string, strict bool) error {
	for _, name := range frame.SortedKeys(c) {
		if !slices.Contains(names, name) {
			if strict {
				return fmt.Errorf("it has a column %q that this vramsweep does not know: it was written by a newer one", name)
			}
			continue
		}
		text, err := json.Marshal(c[name])
		if err == nil {
			err = json.Unmarshal(text, reflect.ValueOf(row).Elem().FieldByIndex(fields[name]).Addr().Interface())
		}
		if err != nil {
			return fmt.Errorf("column %s: %w", name, err)
		}
	}
	return nil
}

// WriteBaseline writes what Run needs of runs as one file: comparing with the
// file gives what comparing with the rows gives. Blind runs are left out. It fails
// with frame.ErrNoRuns and frame.ErrMixed.
func WriteBaseline(out io.Writer, rows []sinks.RunRow, about BaselineInfo) error {
	rows, cover := frame.Covered(rows)
	if len(rows) == 0 {
		return fmt.Errorf("baseline: %w%s", frame.ErrNoRuns, strings.Join(append([]string{""}, cover.Says()...), ": "))
	}
	if err := frame.SameKind(rows); err != nil {
		return fmt.Errorf("baseline: %w", err)
	}
	contexts, profiles, runs, err := baselineLines(rows)
	if err != nil {
		return fmt.Errorf("baseline: %w", err)
	}
	text := func(v any) []byte { line, _ := json.Marshal(v); return line } // texts always are
	w := frame.NewText(out)
	w.Printf("{\"vramsweep_baseline\":%d,\n\"schema_version\":%s,\n\"vramsweep_version\":%s,\n"+
		"\"written\":%s,\n\"from\":%s,\n",
		baselineVersion, text(runner.SchemaVersion), text(about.Version),
		text(about.Now.UTC().Format(time.RFC3339)), text(about.From))
	w.Printf("\"synthetic\":%t,\n\"left_out\":%s,\n\"contexts\":[\n%s\n],\n\"profiles\":[\n",
		rows[0].Synthetic, text(cover), strings.Join(contexts, ",\n"))
	for i, p := range profiles {
		end := ","
		if i+1 == len(profiles) {
			end = ""
		}
		w.Printf("{%s,\"runs\":[\n %s\n]}%s\n", p, strings.Join(runs[p], ",\n "), end)
	}
	w.Printf("]}\n")
	if w.Err != nil {
		return fmt.Errorf("writing the baseline: %w", w.Err)
	}
	return nil
}

// baselineLines puts rows together by their settings, in order of first
// appearance: the lines of contexts and profiles, and of each profile's runs.
func baselineLines(rows []sinks.RunRow) (contexts, profiles []string, runs map[string][]string, err error) {
	settings, context, identity := kept()
	figures, fields := frame.FigureColumns(), frame.Fields()
	runs = map[string][]string{}
	for i := range rows {
		r := &rows[i]
		text := func(v any) string {
			line, failed := json.Marshal(v)
			if failed != nil && err == nil {
				err = fmt.Errorf("run %s: %w", r.RunID, failed)
			}
			return string(line)
		}
		of := func(names []string) columns { return frame.ValuesOf(r, fields, names) }
		where := text(of(context))
		if !slices.Contains(contexts, where) {
			contexts = append(contexts, where)
		}
		profile := `"settings":` + text(of(settings))
		if len(r.Axes) > 0 {
			profile += `,"axes":` + text(r.Axes)
		}
		if runs[profile] == nil {
			profiles = append(profiles, profile)
		}
		runs[profile] = append(runs[profile],
			text(baselineRun{of(identity), slices.Index(contexts, where), of(figures)}))
	}
	return contexts, profiles, runs, err
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

// ReadBaseline reads a file of WriteBaseline: rows that hold what Run needs, and
// nothing else. It fails with ErrBaseline.
func ReadBaseline(in io.Reader) ([]sinks.RunRow, error) {
	decoder := json.NewDecoder(in)
	decoder.UseNumber() // axes: 1 is whole, 1.5 is not
	var file baseline
	if err := decoder.Decode(&file); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBaseline, err)
	}
	if file.Format != baselineVersion {
		return nil, fmt.Errorf("%w: its format is %d, this vramsweep reads %d: save it again with `vramsweep compare save`",
			ErrBaseline, file.Format, baselineVersion)
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

func (b *baseline) rows() ([]sinks.RunRow, error) {
	fields := frame.Fields()
	seen := map[string]bool{}
	var rows []sinks.RunRow
	for i := range b.Profiles {
		p := &b.Profiles[i]
		axes, err := axisValues(p.Axes)
		if err != nil {
			return nil, fmt.Errorf("profile %d: %w", i+1, err)
		}
		for k := range p.Runs {
			row := sinks.RunRow{Axes: axes}
			row.Synthetic = b.Synthetic
			if err := b.fill(&row, p.Settings, &p.Runs[k], fields); err != nil {
				return nil, fmt.Errorf("profile %d, run %d: %w", i+1, k+1, err)
			}
			if seen[row.RunID] {
				return nil, fmt.Errorf("profile %d, run %d: run_id %s stands in it twice", i+1, k+1, row.RunID)
			}
			seen[row.RunID] = true
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func (b *baseline) fill(row *sinks.RunRow, asked columns, run *baselineRun, fields map[string][]int) error {
	if run.Context < 0 || run.Context >= len(b.Contexts) {
		return fmt.Errorf("context %d: there are %d", run.Context, len(b.Contexts))
	}
	settings, context, identity := kept()
	err := errors.Join(
		asked.put(row, fields, settings, true),
		b.Contexts[run.Context].put(row, fields, context, true),
		run.Run.put(row, fields, identity, true),
		run.Figures.put(row, fields, frame.FigureColumns(), false))
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
