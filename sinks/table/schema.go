package table

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// Fields are the fields of a row that are columns, embedded ones in place.
func Fields(row reflect.Type) []reflect.StructField {
	var fields []reflect.StructField
	for _, f := range reflect.VisibleFields(row) {
		if !f.Anonymous && f.Tag.Get("parquet") != "-" {
			fields = append(fields, f)
		}
	}
	return fields
}

// ColumnName is the name of a field's column.
func ColumnName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("parquet"), ",")
	return name
}

// Nullable says whether a field's column may be null: a pointer, or a text or a
// number whose zero stands for null.
func Nullable(f reflect.StructField) bool {
	return slices.Contains(strings.Split(f.Tag.Get("parquet"), ","), "optional")
}

// rowSchema is the schema by which rows are taken apart and put together.
// parquet-go's own makes a value of every null that lies in an embedded struct;
// here a field is where Go has it.
func rowSchema(row reflect.Type) *parquet.Schema {
	s, fields := parquet.SchemaOf(reflect.New(row).Interface()), Fields(row)
	node := rowNode{Node: s}
	for i, f := range s.Fields() {
		node.fields = append(node.fields, rowField{f, fields[i].Index})
	}
	return parquet.NewSchema(s.Name(), node)
}

type rowNode struct {
	parquet.Node
	fields []parquet.Field
}

// Fields implements parquet.Node.
func (n rowNode) Fields() []parquet.Field { return n.fields }

type rowField struct {
	parquet.Field
	index []int
}

// Value implements parquet.Field.
func (f rowField) Value(row reflect.Value) reflect.Value { return row.FieldByIndex(f.index) }

// SchemaOf is the schema of rows; axes are further columns. They stand behind
// the others, so that plain readers of several files agree.
func SchemaOf(row reflect.Type, axes []Axis) *parquet.Schema {
	var fields []reflect.StructField
	asIs := len(axes) == 0
	for _, f := range Fields(row) {
		field := reflect.StructField{Name: f.Name, Type: f.Type, Tag: f.Tag}
		if f.Tag.Get("enc") == "delta" { // the schema alone: rows keep their pointers, and so their nulls
			asIs = false
			field.Type = f.Type.Elem()
			field.Tag = reflect.StructTag(fmt.Sprintf("parquet:%q", f.Tag.Get("parquet")+",delta"))
		}
		fields = append(fields, field)
	}
	if asIs {
		return parquet.SchemaOf(reflect.New(row).Interface())
	}
	for i, a := range axes {
		tag := a.Column + ",optional"
		if a.Kind == KindString || a.Kind == KindInt {
			tag += ",dict"
		}
		fields = append(fields, reflect.StructField{Name: fmt.Sprintf("Axis%d", i), Type: a.Kind.info().goType,
			Tag: reflect.StructTag(fmt.Sprintf("parquet:%q", tag))})
	}
	return parquet.SchemaOf(reflect.New(reflect.StructOf(fields)).Interface())
}

// unitsOf are the units of columns whose names do not say them.
func unitsOf(row reflect.Type) map[string]string {
	units := map[string]string{}
	for _, f := range Fields(row) {
		if unit := f.Tag.Get("unit"); unit != "" {
			units[ColumnName(f)] = unit
		}
	}
	return units
}
