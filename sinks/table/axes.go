package table

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"github.com/parquet-go/parquet-go"
)

// An Axis is a column that holds a free axis of the matrix.
type Axis struct {
	Column string // axis_NAME, or axis_NAME_double where axis_NAME already has another type
	Axis   string
	Kind   Kind
}

// Kind is the type of an axis column; it never changes.
type Kind string

// The kinds.
const (
	KindString Kind = "string"
	KindInt    Kind = "int"
	KindDouble Kind = "double"
	KindBool   Kind = "bool"
)

// A kindInfo is what is known of a kind.
type kindInfo struct {
	kind    Kind
	goType  reflect.Type // nullable
	sql     string       // as DuckDB names it
	parquet parquet.Kind
}

func kinds() []kindInfo {
	return []kindInfo{
		{KindString, reflect.TypeFor[*string](), "VARCHAR", parquet.ByteArray},
		{KindInt, reflect.TypeFor[*int64](), "BIGINT", parquet.Int64},
		{KindDouble, reflect.TypeFor[*float64](), "DOUBLE", parquet.Double},
		{KindBool, reflect.TypeFor[*bool](), "BOOLEAN", parquet.Boolean},
	}
}

// infoOf is that of the kind that is asked for; of strings where there is none.
func infoOf(is func(kindInfo) bool) kindInfo {
	all := kinds()
	return all[max(0, slices.IndexFunc(all, is))]
}

func (k Kind) info() kindInfo { return infoOf(func(i kindInfo) bool { return i.kind == k }) }

// SQLType is the type as DuckDB names it.
func (k Kind) SQLType() string { return k.info().sql }

// As is v in a kind that is as wide or wider.
func (k Kind) As(v any) any {
	if x, ok := v.(int64); ok && k == KindDouble {
		return float64(x)
	}
	if _, ok := v.(string); !ok && k == KindString {
		return fmt.Sprint(v)
	}
	return v
}

func kindOf(v any) Kind {
	return infoOf(func(i kindInfo) bool { return i.goType.Elem() == reflect.TypeOf(v) }).kind
}

func widerKind(a, b Kind) Kind {
	switch {
	case a == "" || a == b:
		return b
	case a == KindInt && b == KindDouble, a == KindDouble && b == KindInt:
		return KindDouble
	default:
		return KindString
	}
}

// AddAxes adds columns that are new.
func AddAxes(axes, more []Axis) []Axis {
	for _, a := range more {
		if !slices.ContainsFunc(axes, func(b Axis) bool { return a.Column == b.Column }) {
			axes = append(axes, a)
		}
	}
	return axes
}

// MergeAxes adds the columns that the axes of rows need, and brings the values
// of one axis to one kind. A column never changes its type: an axis that comes
// with another one gets a further column.
func MergeAxes(known []Axis, rows []map[string]any) []Axis {
	kinds := map[string]Kind{}
	for _, row := range rows {
		for axis, v := range row {
			kinds[axis] = widerKind(kinds[axis], kindOf(v))
		}
	}
	for _, row := range rows {
		for axis, v := range row {
			row[axis] = kinds[axis].As(v)
		}
	}
	axes := slices.Clone(known)
	taken := map[string]bool{}
	for _, a := range axes {
		taken[strings.ToLower(a.Column)] = true
	}
	for _, axis := range slices.Sorted(maps.Keys(kinds)) {
		kind := kinds[axis]
		if slices.ContainsFunc(axes, func(a Axis) bool { return a.Axis == axis && a.takes(kind) }) {
			continue
		}
		column := axisColumnName(axis)
		for taken[strings.ToLower(column)] { // SQL does not tell A from a
			column += "_" + string(kind)
		}
		taken[strings.ToLower(column)] = true
		axes = append(axes, Axis{Column: column, Axis: axis, Kind: kind})
	}
	return axes
}

func (a Axis) takes(kind Kind) bool { return a.Kind == kind || a.Kind == KindDouble && kind == KindInt }

// axisColumnName is axis_NAME; the language lets an axis be named by letters,
// digits, _ and - only, run.json of others may have anything.
func axisColumnName(axis string) string {
	return "axis_" + strings.Map(func(c rune) rune {
		if unicode.IsLetter(c) || unicode.IsDigit(c) || c == '_' || c == '-' {
			return c
		}
		return '_'
	}, axis)
}

// AxisValues are the values of the axis columns for a row: nil where it has
// none. A value stands in one column: that of its own kind, or for a whole
// number one of doubles.
func AxisValues(axes []Axis, row map[string]any) []any {
	values := make([]any, len(axes))
	for axis, v := range row {
		if v == nil {
			continue
		}
		kind, at := kindOf(v), -1
		for i, a := range axes {
			if a.Axis == axis && (a.Kind == kind || at < 0 && a.takes(kind)) {
				at = i
			}
		}
		if at >= 0 {
			values[at] = axes[at].Kind.As(v)
		}
	}
	return values
}

// Axes are the axis columns of a file.
func (f *File) Axes() []Axis {
	names := map[string]string{}
	if text, ok := f.pf.Lookup(metaAxes); !ok || json.Unmarshal([]byte(text), &names) != nil {
		return nil
	}
	var axes []Axis
	for _, c := range f.pf.Root().Columns() {
		axis, ok := names[c.Name()]
		if !ok || !c.Leaf() {
			continue
		}
		kind := infoOf(func(i kindInfo) bool { return i.parquet == c.Type().Kind() }).kind
		axes = append(axes, Axis{Column: c.Name(), Axis: axis, Kind: kind})
	}
	return axes
}

// UsedAxes are the axis columns of a file that have a value in it.
func (f *File) UsedAxes() []Axis {
	return slices.DeleteFunc(f.Axes(), func(a Axis) bool {
		leaf, ok := f.pf.Schema().Lookup(a.Column)
		for _, group := range f.pf.Metadata().RowGroups {
			m := group.Columns[leaf.ColumnIndex].MetaData
			if !ok || m.Statistics.NullCount < m.NumValues {
				return false
			}
		}
		return true
	})
}
