package sweep

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// functions is the table of functions that expressions may call, by Terraform's
// names where Terraform has them. None depends on anything but its arguments
// and, model(), on the catalogue.
func (l *loader) functions() map[string]function.Function {
	table := map[string]function.Function{
		// numbers
		"abs": stdlib.AbsoluteFunc, "ceil": stdlib.CeilFunc, "floor": stdlib.FloorFunc, "log": stdlib.LogFunc,
		"max": stdlib.MaxFunc, "min": stdlib.MinFunc, "pow": stdlib.PowFunc, "signum": stdlib.SignumFunc,
		"parseint": stdlib.ParseIntFunc, "sum": sumFunc(), "round": roundFunc(),
		// lists and maps
		"chunklist": stdlib.ChunklistFunc, "coalesce": stdlib.CoalesceFunc, "coalescelist": stdlib.CoalesceListFunc,
		"compact": stdlib.CompactFunc, "concat": stdlib.ConcatFunc, "contains": stdlib.ContainsFunc,
		"distinct": stdlib.DistinctFunc, "element": stdlib.ElementFunc, "flatten": stdlib.FlattenFunc,
		"index": indexFunc(), "keys": stdlib.KeysFunc, "length": lengthFunc(), "lookup": stdlib.LookupFunc,
		"merge": stdlib.MergeFunc, "range": stdlib.RangeFunc, "reverse": stdlib.ReverseListFunc,
		"setintersection": stdlib.SetIntersectionFunc, "setproduct": setProductFunc(), "setsubtract": stdlib.SetSubtractFunc,
		"setunion": stdlib.SetUnionFunc, "slice": stdlib.SliceFunc, "sort": stdlib.SortFunc,
		"values": stdlib.ValuesFunc, "zipmap": stdlib.ZipmapFunc,
		// text
		"chomp": stdlib.ChompFunc, "format": stdlib.FormatFunc, "formatlist": stdlib.FormatListFunc,
		"indent": stdlib.IndentFunc, "join": stdlib.JoinFunc, "lower": stdlib.LowerFunc, "regex": stdlib.RegexFunc,
		"regexall": stdlib.RegexAllFunc, "regexreplace": stdlib.RegexReplaceFunc, "replace": stdlib.ReplaceFunc,
		"split": stdlib.SplitFunc, "strlen": stdlib.StrlenFunc, "strrev": stdlib.ReverseFunc, "substr": stdlib.SubstrFunc,
		"title": stdlib.TitleFunc, "trim": stdlib.TrimFunc, "trimprefix": stdlib.TrimPrefixFunc,
		"trimspace": stdlib.TrimSpaceFunc, "trimsuffix": stdlib.TrimSuffixFunc, "upper": stdlib.UpperFunc,
		// types and encodings
		"can": tryfunc.CanFunc, "try": tryfunc.TryFunc, "csvdecode": stdlib.CSVDecodeFunc,
		"jsondecode": stdlib.JSONDecodeFunc, "jsonencode": stdlib.JSONEncodeFunc,
		"tobool": stdlib.MakeToFunc(cty.Bool), "tolist": stdlib.MakeToFunc(cty.List(cty.DynamicPseudoType)),
		"tomap": stdlib.MakeToFunc(cty.Map(cty.DynamicPseudoType)), "tonumber": stdlib.MakeToFunc(cty.Number),
		"toset": stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)), "tostring": stdlib.MakeToFunc(cty.String),
		// ours
		"duration": durationFunc(), "model": l.modelFunc(), "size": sizeFunc(),
	}
	for name, f := range table {
		if name != "try" && name != "can" { // they take expressions, not values
			table[name] = bounded(name, f, l.guard)
		}
	}
	return table
}

// bounded refuses arguments whose result would be large beyond use before the
// function builds it: a line of a file must not fill the memory.
func bounded(name string, f function.Function, guard *budget) function.Function {
	params := f.Params()
	for i := range params { // unknown and null go through to the function's own rules
		params[i].AllowMarked = false
	}
	return function.New(&function.Spec{
		Description: f.Description(),
		Params:      params,
		VarParam:    f.VarParam(),
		Type: func(args []cty.Value) (cty.Type, error) {
			n, err := checkArgs(name, args)
			if err != nil {
				return cty.DynamicPseudoType, err
			}
			if !guard.spend(1 + n/16 + writing(name, args)) {
				return cty.DynamicPseudoType, errTooLarge
			}
			return f.ReturnTypeForValues(args)
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return f.Call(args) },
	})
}

// writeCost is what it costs to write a number in digits: HCL's have 512 bits.
const writeCost = 40

// writing is what a function spends on writing numbers.
func writing(name string, args []cty.Value) int {
	switch name {
	case "jsonencode", "tostring", "format", "formatlist":
	default:
		return 0
	}
	n := 0
	for _, a := range args {
		_ = cty.Walk(a, func(_ cty.Path, v cty.Value) (bool, error) {
			if v.Type() == cty.Number {
				n += writeCost
			}
			return true, nil
		})
	}
	return n
}

var errTooLarge = errors.New("the result would be too large")

// checkArgs says how large the arguments and the result are, or that they are too
// large.
func checkArgs(name string, args []cty.Value) (int, error) {
	total := 0
	for _, a := range args {
		if total += weight(a, maxWeight); total > maxWeight {
			return 0, errTooLarge
		}
	}
	size := 0
	switch name {
	case "join":
		for _, a := range args[min(1, len(args)):] {
			size += elementCount(a) * textLen(args[0])
		}
	case "replace":
		s, _ := asString(args[0])
		old, _ := asString(args[1])
		size = (strings.Count(s, old) + 1) * textLen(args[2])
	case "regexreplace":
		size = (textLen(args[0]) + 1) * (textLen(args[2]) + 1)
	case "indent":
		s, _ := asString(args[1])
		size = (strings.Count(s, "\n") + 1) * wholeNumber(args[0])
	case "format", "formatlist":
		if s, _ := asString(args[0]); wideVerb.MatchString(s) {
			return 0, errors.New("a width or precision in the format has more than three digits")
		}
	case "parseint":
		if textLen(args[0]) > maxNumberLen {
			return 0, errTooLarge
		}
	case "tonumber", "jsondecode":
		if s, _ := asString(args[0]); longNumber.MatchString(s) {
			return 0, errors.New("it holds a number that is too long or too large")
		}
	}
	if size > maxWeight {
		return 0, errTooLarge
	}
	return total + size, nil
}

var (
	// longNumber is a number of absurd length or exponent.
	longNumber = regexp.MustCompile(`(?:[0-9]\.?){49}|[0-9.][eE][+-]?[0-9]{4}`)
	// wideVerb is a verb of a format whose width or precision is larger than any column.
	wideVerb = regexp.MustCompile(`%[-0-9.+# \[\]*]*[0-9]{4}`)
)

func elementCount(v cty.Value) int {
	if !v.IsKnown() || v.IsNull() || !v.CanIterateElements() {
		return 0
	}
	return v.LengthInt()
}

func textLen(v cty.Value) int { s, _ := asString(v); return len(s) }

func wholeNumber(v cty.Value) int {
	if g, ok := toGo(v); ok {
		if i, ok := g.(int64); ok && i > 0 {
			return int(min(i, maxWeight+1))
		}
	}
	return 0
}

// numeric makes a function of arguments of one type whose result is a number.
func numeric(of cty.Type, f func(args []cty.Value) (cty.Value, error), params ...string) function.Function {
	spec := &function.Spec{
		Type: function.StaticReturnType(cty.Number),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return f(args) },
	}
	for _, p := range params {
		spec.Params = append(spec.Params, function.Parameter{Name: p, Type: of})
	}
	return function.New(spec)
}

// lengthFunc is length() of Terraform: of a list, a map, an object or a text.
func lengthFunc() function.Function {
	return numeric(cty.DynamicPseudoType, func(args []cty.Value) (cty.Value, error) {
		switch v := args[0]; {
		case v.Type() == cty.String:
			return stdlib.Strlen(v)
		case v.CanIterateElements():
			return cty.NumberIntVal(int64(v.LengthInt())), nil
		}
		return cty.NilVal, errors.New("a list, a map, an object or a text has a length")
	}, "value")
}

// indexFunc is index() of Terraform: the position of a value in a list.
func indexFunc() function.Function {
	return numeric(cty.DynamicPseudoType, func(args []cty.Value) (cty.Value, error) {
		if t := args[0].Type(); !t.IsTupleType() && !t.IsListType() {
			return cty.NilVal, function.NewArgErrorf(0, "a list is needed")
		}
		i := int64(0)
		for it := args[0].ElementIterator(); it.Next(); i++ {
			if _, v := it.Element(); v.Type().Equals(args[1].Type()) && v.RawEquals(args[1]) {
				return cty.NumberIntVal(i), nil
			}
		}
		return cty.NilVal, errors.New("the list does not hold the value")
	}, "list", "value")
}

// roundFunc rounds half away from zero.
func roundFunc() function.Function {
	return numeric(cty.Number, func(args []cty.Value) (cty.Value, error) {
		half := cty.NumberFloatVal(0.5)
		if args[0].LessThan(cty.Zero).True() {
			return stdlib.Ceil(args[0].Subtract(half))
		}
		return stdlib.Floor(args[0].Add(half))
	}, "num")
}

// isSequence says whether a value is a list, a tuple or a set.
func isSequence(v cty.Value) bool {
	return v.CanIterateElements() && !v.Type().IsObjectType() && !v.Type().IsMapType()
}

func sumFunc() function.Function {
	return numeric(cty.DynamicPseudoType, func(args []cty.Value) (cty.Value, error) {
		needed := errors.New("a list of numbers is needed")
		if !isSequence(args[0]) {
			return cty.NilVal, needed
		}
		total := cty.Zero
		for it := args[0].ElementIterator(); it.Next(); {
			_, v := it.Element()
			if v.IsNull() || v.Type() != cty.Number {
				return cty.NilVal, needed
			}
			total = total.Add(v)
		}
		return total, nil
	}, "list")
}

// setProductFunc is setproduct() for lists: all combinations, as a list of
// lists, in order. The number of them is checked first.
func setProductFunc() function.Function {
	return function.New(&function.Spec{
		VarParam: &function.Parameter{Name: "lists", Type: cty.DynamicPseudoType},
		Type:     function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if len(args) < 2 {
				return cty.NilVal, errors.New("two lists or more are needed")
			}
			n, lists := 1, make([][]cty.Value, len(args))
			for i, a := range args {
				if !isSequence(a) {
					return cty.NilVal, function.NewArgErrorf(i, "a list is needed")
				}
				if n *= a.LengthInt(); n*len(args) > maxPoints {
					return cty.NilVal, errTooLarge
				}
				lists[i] = a.AsValueSlice()
			}
			vals := []cty.Value{}
			for _, row := range product(lists) {
				vals = append(vals, cty.TupleVal(row))
			}
			return cty.TupleVal(vals), nil
		},
	})
}

// sizeFunc is size("80GiB"): bytes.
func sizeFunc() function.Function {
	return numeric(cty.String, func(args []cty.Value) (cty.Value, error) {
		n, err := ParseSize(args[0].AsString())
		if errors.Is(err, errNoUnit) {
			err = fmt.Errorf("a size needs a unit, as in %q", strings.TrimSpace(args[0].AsString())+"GiB")
		}
		return cty.NumberIntVal(n), err
	}, "size")
}

// durationFunc is duration("30m"): seconds.
func durationFunc() function.Function {
	return numeric(cty.String, func(args []cty.Value) (cty.Value, error) {
		d, err := ParseDuration(args[0].AsString())
		if errors.Is(err, errNoUnit) {
			err = fmt.Errorf("a duration needs a unit, as in %q", strings.TrimSpace(args[0].AsString())+"s")
		}
		return cty.NumberFloatVal(d.Seconds()), err
	}, "duration")
}

// modelFunc is model("owner/name"): the architecture as an object.
func (l *loader) modelFunc() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "name", Type: cty.String}},
		Type:   function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			ref, err := l.resolveModel(args[0].AsString())
			if err != nil {
				return cty.NilVal, err
			}
			if ref.arch == nil {
				return cty.NilVal, fmt.Errorf(
					"nothing is known of the model %q; describe it with a model block, or use try()", args[0].AsString())
			}
			return ref.object(), nil
		},
	})
}
