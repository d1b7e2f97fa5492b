package analyze

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
)

// A prediction is one row of somebody's calculator.
type prediction struct {
	match map[string]string  // column -> value that a run must have
	parts map[string]float64 // bytes
}

// ErrPredictions says that predictions cannot be read.
var ErrPredictions = errors.New("unreadable predictions")

// ReadPredictions reads the predictions of a calculator: CSV with a header, or a
// JSON array of objects (the first character tells). Columns run_id, profile_id
// and the names of settings say which runs a row is about: a run must agree in
// all that are not empty. Columns COMPONENT_bytes, or COMPONENT_gib, hold the
// predicted memory summed over the run's GPUs, with the components of
// CalculatorComponents; an empty cell predicts nothing. Any other column is an
// error. It fails with ErrPredictions.
func ReadPredictions(name string, in io.Reader) (Calculator, error) {
	text, err := io.ReadAll(in)
	if err != nil {
		return Calculator{}, fmt.Errorf("reading %s: %w", name, err)
	}
	var rows []map[string]string
	if strings.HasPrefix(strings.TrimSpace(string(text)), "[") {
		rows, err = jsonRows(text)
	} else {
		rows, err = csvRows(string(text))
	}
	if err != nil {
		return Calculator{}, fmt.Errorf("%w in %s: %w", ErrPredictions, name, err)
	}
	list := make([]prediction, 0, len(rows))
	for i, row := range rows {
		p, err := predictionOf(row)
		if err != nil {
			return Calculator{}, fmt.Errorf("%w in %s, row %d: %w", ErrPredictions, name, i+1, err)
		}
		list = append(list, p)
	}
	if len(list) == 0 {
		return Calculator{}, fmt.Errorf("%w in %s: it has no rows", ErrPredictions, name)
	}
	return Calculator{Name: name, Says: fmt.Sprintf("%d predictions", len(list)), Predict: lookup(list)}, nil
}

// lookup finds the prediction of a run; the one that names more wins.
func lookup(list []prediction) func(*sinks.RunRow) (map[string]float64, string) {
	slices.SortStableFunc(list, func(a, b prediction) int { return len(b.match) - len(a.match) })
	return func(r *sinks.RunRow) (map[string]float64, string) {
		for _, p := range list {
			if p.fits(r) {
				return p.parts, ""
			}
		}
		return nil, "no row of the predictions is about them"
	}
}

func (p prediction) fits(r *sinks.RunRow) bool {
	for column, want := range p.match {
		have, ok := "", true
		switch column {
		case "run_id":
			have = r.RunID
		case "profile_id":
			have = r.ProfileID
		default:
			have, ok = columnText(column, r)
		}
		if !ok || have != want {
			return false
		}
	}
	return true
}

// columnText is a setting of a run by name, as text; numbers as the table has them.
func columnText(name string, r *sinks.RunRow) (string, bool) {
	for _, s := range columnsOf([]sinks.RunRow{*r}) {
		if s.Name == name {
			return s.Text(r), true
		}
	}
	return "", false
}

func predictionOf(row map[string]string) (prediction, error) {
	p := prediction{match: map[string]string{}, parts: map[string]float64{}}
	known := CalculatorComponents()
	for _, column := range sortedKeys(row) {
		value := strings.TrimSpace(row[column])
		component, unit := componentOf(column)
		_, isComponent := known[component]
		switch {
		case unit > 0 && isComponent:
			if value == "" {
				continue
			}
			n, err := strconv.ParseFloat(value, 64)
			if err != nil || !(n >= 0 && n < 1e18) {
				return p, fmt.Errorf("column %s: %q is no amount of memory", column, value)
			}
			p.parts[component] = n * unit
		case selects(column):
			if value != "" {
				p.match[column] = value
			}
		default:
			return p, fmt.Errorf("column %q is neither run_id, profile_id, a setting, nor COMPONENT_bytes or COMPONENT_gib; components are %s", column, strings.Join(sortedKeys(known), ", "))
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

// selects tells whether a column says which runs a row is about.
func selects(column string) bool {
	return column == "run_id" || column == "profile_id" || slices.Contains(settingNames(), column) || isContext(column) || strings.HasPrefix(column, "axis_")
}

// componentOf cuts the unit off a column; unit is 0 where there is none.
func componentOf(column string) (component string, unit float64) {
	if base, ok := strings.CutSuffix(column, "_bytes"); ok {
		return base, 1
	}
	if base, ok := strings.CutSuffix(column, "_gib"); ok {
		return base, gib
	}
	return column, 0
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
			row[strings.TrimSpace(all[0][i])] = value
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
