package sinks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// maxResult bounds a run.json that is read: ours stay under 2 MiB.
const maxResult = 256 << 20

// WriteResult writes a result to a file of any folder.
func WriteResult(name string, r *runner.Result) error {
	return WriteFile(name, func(w io.Writer) error { return EncodeResult(w, r) })
}

// EncodeResult writes the JSON of a result: sections and their fields on lines
// of their own, what lies deeper compact. A figure that is not finite has no
// JSON; it becomes null and Missing names it, so that nothing else of the run is
// lost with it.
func EncodeResult(w io.Writer, r *runner.Result) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if errors.As(err, new(*json.UnsupportedValueError)) {
		clean := *r
		clean.Missing = map[string]string{}
		maps.Copy(clean.Missing, r.Missing)
		dropNonFinite(reflect.ValueOf(&clean).Elem(), clean.Missing)
		b, err = json.MarshalIndent(&clean, "", "  ")
	}
	if err != nil {
		return fmt.Errorf("encoding the result of %s: %w", r.Run.RunID, err)
	}
	// No string has a line break: what is indented by six or more joins the line of its field.
	b = regexp.MustCompile(`,\n {6,}`).ReplaceAll(b, []byte(", "))
	b = regexp.MustCompile(`\n {6,}|\n {4}([]}])`).ReplaceAll(b, []byte("$1"))
	_, err = w.Write(sealJSON(append(b, '\n')))
	return err
}

// dropNonFinite makes every figure under v that is not finite null, or 0 where
// it cannot be null; the names of those go into missing.
func dropNonFinite(v reflect.Value, missing map[string]string) {
	rewrite(v, "", func(v reflect.Value, name string) bool {
		figure := v
		if v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
			figure = v.Elem()
		}
		if figure.CanFloat() && (math.IsNaN(figure.Float()) || math.IsInf(figure.Float(), 0)) {
			missing[name] = "the figure was not a finite number"
			v.SetZero()
			return true
		}
		return v.Type() == reflect.TypeFor[map[string]string]() // missing itself
	})
}

// masked is a result without secrets; what identifies its run stays as it is.
func masked(r *runner.Result, m *proc.Masker) *runner.Result {
	out := *r
	info := r.Run
	rewrite(reflect.ValueOf(&out).Elem(), "", func(v reflect.Value, name string) bool {
		name = name[strings.LastIndexByte(name, '.')+1:]
		switch v.Type() {
		case reflect.TypeFor[string]():
			v.SetString(m.Value(name, v.String()).(string))
		case reflect.TypeFor[[]string]():
			v.Set(reflect.ValueOf(m.Argv(v.Interface().([]string))))
		case reflect.TypeFor[time.Time]():
			if year := v.Interface().(time.Time).Year(); year < 1 || year > 9999 { // an engine's clock: JSON has no such time
				v.SetZero()
			}
		case reflect.TypeFor[[]float64](), reflect.TypeFor[[]runner.FileInfo]():
		default:
			return false
		}
		return true
	})
	out.Run.RunID, out.Run.Execution = info.RunID, info.Execution
	out.Run.Sweep, out.Run.ProfileID = info.Sweep, info.ProfileID
	out.Run.SkippedBecause = info.SkippedBecause
	return &out
}

// rewrite lets leaf change what lies under v, each value under its path; leaf
// reports whether that is all. What v points to is copied before it is changed.
func rewrite(v reflect.Value, name string, leaf func(reflect.Value, string) bool) {
	if v.IsZero() || leaf(v, name) {
		return
	}
	clean := func(v reflect.Value, name string) reflect.Value {
		c := reflect.New(v.Type()).Elem()
		c.Set(v)
		rewrite(c, name, leaf)
		return c
	}
	switch v.Kind() {
	case reflect.Struct:
		rewriteFields(v, name, leaf)
	case reflect.Pointer:
		v.Set(clean(v.Elem(), name).Addr())
	case reflect.Interface:
		v.Set(clean(v.Elem(), name))
	case reflect.Slice:
		members := reflect.MakeSlice(v.Type(), 0, v.Len())
		for i, member := range v.Seq2() {
			members = reflect.Append(members, clean(member, fmt.Sprintf("%s[%v]", name, i)))
		}
		v.Set(members)
	case reflect.Map:
		members := reflect.MakeMap(v.Type())
		for k, member := range v.Seq2() {
			members.SetMapIndex(k, clean(member, fmt.Sprintf("%s.%v", name, k)))
		}
		v.Set(members)
	}
}

func rewriteFields(v reflect.Value, name string, leaf func(reflect.Value, string) bool) {
	for f, field := range v.Fields() {
		switch tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); {
		case !f.IsExported():
		case f.Anonymous || tag == "":
			rewrite(field, name, leaf)
		default:
			rewrite(field, strings.TrimPrefix(name+"."+tag, "."), leaf)
		}
	}
}

// ReadResult reads a run.json of this or an earlier version, or of anybody who
// writes the same schema: unknown fields are passed over, missing ones stay nil.
func ReadResult(name string) (*runner.Result, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading a result: %w", err)
	}
	r, err := DecodeResult(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("reading the result %s: %w", name, err)
	}
	return r, nil
}

// DecodeResult is ReadResult for a stream.
func DecodeResult(in io.Reader) (*runner.Result, error) {
	b, err := io.ReadAll(io.LimitReader(in, maxResult+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxResult {
		return nil, fmt.Errorf("it is larger than %d MiB and no run.json", maxResult>>20)
	}
	r := new(runner.Result)
	if err := checkJSON(b); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("it is no run.json: %w", explainJSON(b, err))
	}
	if major, _, _ := strings.Cut(r.SchemaVersion, "."); major != "3" {
		return nil, fmt.Errorf("its schema_version is %q, expected 3.x", r.SchemaVersion)
	}
	if r.Run.Axes, err = exactAxes(b); err != nil {
		return nil, err
	}
	return r, nil
}

// exactAxes reads the axes once more: whole numbers keep all their digits.
func exactAxes(b []byte) (map[string]any, error) {
	var head struct {
		Run struct {
			Axes map[string]any `json:"axes"`
		} `json:"run"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	err := d.Decode(&head)
	for name, v := range head.Run.Axes {
		if _, ok := v.(json.Number); ok {
			head.Run.Axes[name], _ = axisValue(v)
		}
	}
	return head.Run.Axes, err
}

// explainJSON adds the line to an error of the JSON decoder.
func explainJSON(b []byte, err error) error {
	offset := int64(-1)
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		offset = syntax.Offset
	} else if kind := (*json.UnmarshalTypeError)(nil); errors.As(err, &kind) {
		offset = kind.Offset
	}
	if offset < 0 || offset > int64(len(b)) {
		return err
	}
	return fmt.Errorf("line %d: %w", 1+bytes.Count(b[:offset], []byte("\n")), err)
}
