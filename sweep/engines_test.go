package sweep

import (
	"reflect"
	"slices"
	"testing"
)

// TestEngineCounterSeesEveryField changes each field of a profile's settings and
// engine: it needs another one, but for what one engine can vary.
func TestEngineCounterSeesEveryField(t *testing.T) {
	vary := []string{"InputLen", "OutputLen", "BatchSize", "NumIters", "NumItersWarmup"}
	base := Profile{Engine: Engine{Simulator: &Simulator{}}}
	check := func(part string, of func(*Profile) reflect.Value) {
		typ := of(&base).Type()
		for i := range typ.NumField() {
			name := typ.Field(i).Name
			if typ.Field(i).Anonymous {
				continue // a check of its own
			}
			changed := Profile{Engine: Engine{Simulator: &Simulator{}}}
			if name == "Simulator" {
				changed.Engine.Simulator = nil
			} else {
				set(t, of(&changed).Field(i))
			}
			var c EngineCounter
			c.Add(&base)
			first := c.Add(&changed)
			if one := slices.Contains(vary, name); first == one {
				t.Errorf("%s.%s: a new engine: %v", part, name, first)
			}
			if one := name == "MaxModelLen" || slices.Contains(vary, name); (c.AnyLength() == 1) != one {
				t.Errorf("%s.%s: %d engines of any length", part, name, c.AnyLength())
			}
		}
	}
	check("Settings", func(p *Profile) reflect.Value { return reflect.ValueOf(&p.Settings).Elem() })
	check("Asked", func(p *Profile) reflect.Value { return reflect.ValueOf(&p.Settings.Asked).Elem() })
	check("Engine", func(p *Profile) reflect.Value { return reflect.ValueOf(&p.Engine).Elem() })
	check("Simulator", func(p *Profile) reflect.Value { return reflect.ValueOf(p.Engine.Simulator).Elem() })
}

// set gives a field another value.
func set(t *testing.T, v reflect.Value) {
	t.Helper()
	switch x := v.Addr().Interface().(type) {
	case *string:
		*x = "x"
	case **string:
		s := ""
		*x = &s
	case *int64:
		*x = 7
	case **int64:
		n := int64(1)
		*x = &n
	case *float64:
		*x = 0.5
	case **float64:
		f := 0.0
		*x = &f
	case **bool:
		b := false
		*x = &b
	case *[]string:
		*x = []string{""}
	case *[]Flag:
		*x = []Flag{{Name: "f", Value: "v"}}
	case *map[string]any:
		*x = map[string]any{"a": int64(1)}
	default:
		t.Fatalf("no other value of %s", v.Type())
	}
}
