package sweep

import (
	"encoding/json"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// This file is where values of cty become values of Go: string, int64,
// float64, bool, []any and map[string]any. No cty type gets further.

func unknown() cty.Value { return cty.DynamicVal }

// asString returns the text of a known string.
func asString(v cty.Value) (string, bool) {
	if v.IsNull() || !v.IsKnown() || v.Type() != cty.String {
		return "", false
	}
	return v.AsString(), true
}

// toGo converts a wholly known value. Whole numbers that fit become int64, all
// others float64; null becomes nil. ok is false for what has no such form.
func toGo(v cty.Value) (any, bool) {
	if v.IsNull() {
		return nil, true
	}
	if !v.IsKnown() {
		return nil, false
	}
	t := v.Type()
	switch {
	case t == cty.String:
		return v.AsString(), true
	case t == cty.Bool:
		return v.True(), true
	case t == cty.Number:
		return toNumber(v.AsBigFloat())
	case t.IsTupleType(), t.IsListType(), t.IsSetType():
		list := make([]any, 0, v.LengthInt())
		for it := v.ElementIterator(); it.Next(); {
			_, e := it.Element()
			g, ok := toGo(e)
			if !ok {
				return nil, false
			}
			list = append(list, g)
		}
		return list, true
	case t.IsObjectType(), t.IsMapType():
		m := make(map[string]any, v.LengthInt())
		for it := v.ElementIterator(); it.Next(); {
			k, e := it.Element()
			g, ok := toGo(e)
			if !ok {
				return nil, false
			}
			m[k.AsString()] = g
		}
		return m, true
	}
	return nil, false
}

func toNumber(f *big.Float) (any, bool) {
	if f.IsInt() {
		if i, acc := f.Int64(); acc == big.Exact {
			return i, true
		}
	}
	x, _ := f.Float64()
	if f.IsInf() {
		return nil, false
	}
	return x, true
}

// fromGo is the way back, for objects that expressions see. nil becomes null.
func fromGo(v any) cty.Value {
	switch x := v.(type) {
	case string:
		return cty.StringVal(x)
	case bool:
		return cty.BoolVal(x)
	case int64:
		return cty.NumberIntVal(x)
	case float64:
		return cty.NumberFloatVal(x)
	case json.Number:
		if n, err := cty.ParseNumberVal(x.String()); err == nil {
			return n
		}
	case []any:
		vals := make([]cty.Value, len(x))
		for i := range x {
			vals[i] = fromGo(x[i])
		}
		return cty.TupleVal(vals)
	case map[string]any:
		vals := make(map[string]cty.Value, len(x))
		for k := range x {
			vals[k] = fromGo(x[k])
		}
		return cty.ObjectVal(vals)
	}
	return cty.NullVal(cty.DynamicPseudoType)
}

// show writes a value for a message: strings quoted, numbers as they are read.
func show(v any) string {
	switch x := v.(type) {
	case nil:
		return "null"
	case string:
		if len(x) > 80 {
			x = x[:77] + "..."
		}
		return strconv.Quote(x)
	case bool:
		return strconv.FormatBool(x)
	case int64:
		return strconv.FormatInt(x, 10)
	case float64:
		return strconv.FormatFloat(x, 'g', 7, 64)
	case []any:
		if len(x) > 6 {
			return "a list of " + strconv.Itoa(len(x)) + " values"
		}
		parts := make([]string, len(x))
		for i := range x {
			parts[i] = show(x[i])
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		if len(x) > 6 {
			return "an object of " + strconv.Itoa(len(x)) + " keys"
		}
		parts := make([]string, 0, len(x))
		for _, k := range sortedKeys(x) {
			parts = append(parts, k+" = "+show(x[k]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return "?"
}

// kindOf names the kind of a value, with its article.
func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "a bool"
	case int64, float64:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return "a value of another kind"
}

// describe is kindOf with the value of what is short: `the string "x"`.
func describe(v any) string {
	switch v.(type) {
	case string, bool, int64, float64:
		return "the " + strings.TrimPrefix(kindOf(v), "a ") + " " + show(v)
	}
	return kindOf(v)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// encode writes a value in the one form that ids are computed from. It is
// part of the format of ids: changing it changes every id.
func encode(b []byte, v any) []byte {
	switch x := v.(type) {
	case nil:
		return append(b, "null"...)
	case string:
		return strconv.AppendQuoteToASCII(b, x)
	case bool:
		return strconv.AppendBool(b, x)
	case int64:
		return strconv.AppendInt(b, x, 10)
	case float64:
		return strconv.AppendFloat(b, x, 'g', -1, 64)
	case []any:
		b = append(b, '[')
		for i := range x {
			if i > 0 {
				b = append(b, ',')
			}
			b = encode(b, x[i])
		}
		return append(b, ']')
	case map[string]any:
		b = append(b, '{')
		for i, k := range sortedKeys(x) {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendQuoteToASCII(b, k)
			b = append(b, ':')
			b = encode(b, x[k])
		}
		return append(b, '}')
	}
	return b
}

var (
	identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
	fileName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// isIdentifier says whether a name could be written as an attribute of HCL, in
// ASCII. JSON syntax allows any key; names become columns, flags and file
// names, so it gets no further than this.
func isIdentifier(s string) bool { return identifier.MatchString(s) }

// isName says whether a label can be part of a file's name on every system.
func isName(s string) bool { return fileName.MatchString(s) }

func deref[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}
