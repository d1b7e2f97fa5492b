package calculator

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/sinks"
	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// A prediction is one row of somebody's calculator.
type prediction struct {
	match map[string]string  // column -> value that a run must have
	parts map[string]float64 // bytes
	used  bool               // a run was there that it is about
	row   int                // in its file, from 1
}

// ErrPredictions says that predictions cannot be read.
var ErrPredictions = errors.New("unreadable predictions")

// ReadPredictions reads the predictions of a calculator: CSV with a header, or a
// JSON array of objects (the first character tells). Columns run_id, profile_id
// and the names of settings say which runs a row is about: a run must agree in
// all that are not empty. Columns COMPONENT_bytes, or COMPONENT_gib, hold the
// predicted memory summed over the run's GPUs, with the components of
// Components; an empty cell predicts nothing. Any other column is an
// error. It fails with ErrPredictions.
func ReadPredictions(name string, in io.Reader) (Predictor, error) {
	text, err := io.ReadAll(in)
	if err != nil {
		return Predictor{}, fmt.Errorf("reading %s: %w", name, err)
	}
	var rows []map[string]string
	if strings.HasPrefix(strings.TrimSpace(string(text)), "[") {
		rows, err = jsonRows(text)
	} else {
		rows, err = csvRows(string(text))
	}
	if err != nil {
		return Predictor{}, fmt.Errorf("%w in %s: %w", ErrPredictions, name, err)
	}
	list := make([]*prediction, 0, len(rows))
	for i, row := range rows {
		p, err := predictionOf(row)
		if err != nil {
			return Predictor{}, fmt.Errorf("%w in %s, row %d: %w", ErrPredictions, name, i+1, err)
		}
		p.row = i + 1
		list = append(list, &p)
	}
	if len(list) == 0 {
		return Predictor{}, fmt.Errorf("%w in %s: it has no rows", ErrPredictions, name)
	}
	find := nearest(list)
	return Predictor{Name: name, Says: fmt.Sprintf("%d predictions", len(list)),
		Predict: func(r *sinks.RunRow) (map[string]float64, string) {
			best := find(r)
			if len(best) == 0 {
				return nil, "no row of the predictions is about them"
			}
			best[0].used = true
			return best[0].parts, ""
		},
		clash: func(r *sinks.RunRow) error { // no saying which of two is meant
			best := find(r)
			if len(best) < 2 {
				return nil
			}
			return fmt.Errorf("%w: rows %d (%s) and %d (%s) are equally about run %s: let one name more settings",
				ErrPredictions, best[0].row, best[0].about(), best[1].row, best[1].about(), r.RunID)
		},
		notes: func() []string { return idle(list) }}, nil
}

// about says which runs it is about.
func (p *prediction) about() string {
	var all []string
	for _, column := range frame.SortedKeys(p.match) {
		all = append(all, column+"="+p.match[column])
	}
	return strings.Join(all, " ")
}

// nearest finds the predictions of a run that name most.
func nearest(list []*prediction) func(*sinks.RunRow) []*prediction {
	slices.SortStableFunc(list, func(a, b *prediction) int { return len(b.match) - len(a.match) })
	asked := map[string]bool{}
	for _, p := range list {
		for name := range p.match {
			asked[name] = true
		}
	}
	columns := frame.Of(frame.SortedKeys(asked)...)
	return func(r *sinks.RunRow) (best []*prediction) {
		have := make(map[string]string, len(columns))
		for _, s := range columns {
			have[s.Name] = s.Text(r)
		}
		for _, p := range list {
			if len(best) > 0 && len(p.match) < len(best[0].match) {
				break
			}
			if p.fits(have) {
				best = append(best, p)
			}
		}
		return best
	}
}

func (p *prediction) fits(have map[string]string) bool {
	for column, want := range p.match {
		if !sameValue(have[column], want) {
			return false
		}
	}
	return true
}

// sameValue compares a value of the table with one of a file that another
// program wrote: pandas makes 8.0 of a whole number in a column with gaps, and True of true.
func sameValue(have, want string) bool {
	if have == want || (have == "true" || have == "false") && strings.EqualFold(want, have) {
		return true
	}
	a, aerr := strconv.ParseFloat(have, 64)
	b, berr := strconv.ParseFloat(want, 64)
	return aerr == nil && berr == nil && a == b
}

// idle says how many rows are about no run: a misspelt value, most often.
func idle(list []*prediction) []string {
	n, first := 0, ""
	for _, p := range list {
		if p.used {
			continue
		}
		if n++; first == "" {
			first = " " + p.about()
		}
	}
	if n == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d of %d predictions are about no run here, such as that for%s", n, len(list), first)}
}

func predictionOf(row map[string]string) (prediction, error) {
	p := prediction{match: map[string]string{}, parts: map[string]float64{}}
	for _, column := range frame.SortedKeys(row) {
		value := strings.TrimSpace(row[column])
		isPart, err := p.part(column, value)
		switch {
		case err != nil:
			return p, err
		case isPart:
		case selects(column):
			if value != "" {
				p.match[column] = value
			}
		default:
			return p, fmt.Errorf("column %q is neither run_id, profile_id, a setting, nor COMPONENT_bytes or COMPONENT_gib; "+
				"components are %s", column, strings.Join(Components(), ", "))
		}
	}
	switch {
	case len(p.match) == 0:
		return p, errors.New("nothing says which runs it is about: give run_id, profile_id or settings such as model")
	case len(p.parts) == 0:
		return p, errors.New("it predicts nothing")
	}
	return p, nil
}

// part takes a column that is a component; "" predicts nothing.
func (p *prediction) part(column, value string) (bool, error) {
	component, unit := strings.TrimSuffix(column, "_bytes"), 1.0
	if name, ok := strings.CutSuffix(column, "_gib"); ok {
		component, unit = name, frame.GiB
	}
	if component == column || !slices.Contains(Components(), component) {
		return false, nil
	}
	if value == "" {
		return true, nil
	}
	n, err := strconv.ParseFloat(value, 64)
	if err != nil || !(n >= 0 && n*unit < 1e18) {
		return true, fmt.Errorf("column %s: %q is no amount of memory", column, value)
	}
	if _, twice := p.parts[component]; twice {
		return true, fmt.Errorf("column %s: %s is predicted in bytes and in GiB", column, component)
	}
	p.parts[component] = n * unit
	return true, nil
}

// selects tells whether a column says which runs a row is about: an id, a
// setting, what surrounds a run, or axis_NAME.
func selects(column string) bool {
	known := append(append(frame.Settings(), frame.Context()...), "run_id", "profile_id")
	return slices.Contains(known, column) || strings.HasPrefix(column, "axis_")
}

func csvRows(text string) ([]map[string]string, error) {
	reader := csv.NewReader(strings.NewReader(strings.TrimPrefix(text, "\ufeff")))
	reader.TrimLeadingSpace = true
	all, err := reader.ReadAll()
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("it is empty; the first line names the columns")
	}
	var rows []map[string]string
	for _, record := range all[1:] {
		row := map[string]string{}
		for i, value := range record {
			name := strings.TrimSpace(all[0][i])
			if _, twice := row[name]; twice {
				return nil, fmt.Errorf("column %q stands in it twice", name)
			}
			row[name] = value
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func jsonRows(text []byte) ([]map[string]string, error) {
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.UseNumber()
	var objects []map[string]any
	if err := decoder.Decode(&objects); err != nil {
		return nil, err
	}
	if decoder.More() {
		return nil, errors.New("something stands behind the array")
	}
	var rows []map[string]string
	for _, object := range objects {
		row := map[string]string{}
		for key, value := range object {
			if value == nil {
				continue // null: not told
			}
			row[key] = fmt.Sprint(value)
		}
		rows = append(rows, row)
	}
	return rows, nil
}
