package table

import (
	"fmt"
	"reflect"
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
		fields = append(fields, reflect.StructField{Name: fmt.Sprintf("Axis%d", i), Type: a.Kind.goType(),
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
