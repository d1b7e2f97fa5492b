package sinks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// maxResult bounds a run.json that is read: ours stay under 2 MiB.
const maxResult = 256 << 20

// WriteResult writes a result to a file of any folder, as run.json is written:
// under a temporary name beside it, synced, renamed.
func WriteResult(name string, r *runner.Result) error {
	dir, base := filepath.Split(name)
	if dir == "" {
		dir = "."
	}
	f, err := openFolder(dir)
	if err != nil {
		return fmt.Errorf("writing the result to %s: %w; the folder must exist", name, err)
	}
	err = f.replace(base, func(w io.Writer) error { return EncodeResult(w, r) })
	return errors.Join(f.explain("writing "+base, err), f.close())
}

// EncodeResult writes the JSON of a result: sections and their fields on lines
// of their own, what lies deeper compact. A figure that is not finite has no
// JSON; it becomes null and Missing names it, so that nothing else of the run
// is lost with it.
func EncodeResult(w io.Writer, r *runner.Result) error {
	b, err := json.Marshal(r)
	var bad *json.UnsupportedValueError
	if errors.As(err, &bad) {
		mended := *r
		mended.Missing = map[string]string{}
		for k, v := range r.Missing {
			mended.Missing[k] = v
		}
		clean := mendFloats(reflect.ValueOf(mended), "", mended.Missing).Interface().(runner.Result)
		b, err = json.Marshal(&clean)
	}
	if err != nil {
		return fmt.Errorf("encoding the result of %s: %w", r.Run.RunID, err)
	}
	_, err = w.Write(layOut(b))
	return err
}

// layOut breaks the lines of compact JSON down to the fields of a section.
func layOut(b []byte) []byte {
	l := &layout{}
	for i := 0; i < len(b); i++ {
		if b[i] == '"' {
			end := endOfString(b, i)
			l.out.Write(b[i:end])
			i = end - 1
			continue
		}
		next := byte(0)
		if i+1 < len(b) {
			next = b[i+1]
		}
		l.mark(b[i], next)
	}
	l.out.WriteByte('\n')
	return l.out.Bytes()
}

// endOfString is where the string that begins at start has ended.
func endOfString(b []byte, start int) int {
	for i := start + 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
}

type layout struct {
	out   bytes.Buffer
	depth int
	last  byte
}

// deepestLines is the depth down to which members have lines of their own.
const deepestLines = 2

func (l *layout) line() {
	l.out.WriteByte('\n')
	l.out.WriteString(strings.Repeat("  ", l.depth))
}

// mark writes one byte outside of a string.
func (l *layout) mark(c, next byte) {
	switch c {
	case '{', '[':
		l.out.WriteByte(c)
		if l.depth++; l.depth <= deepestLines && next != '}' && next != ']' {
			l.line()
		}
	case '}', ']':
		if l.depth--; l.depth < deepestLines && l.last != '{' && l.last != '[' {
			l.line()
		}
		l.out.WriteByte(c)
	case ',':
		if l.out.WriteByte(c); l.depth <= deepestLines {
			l.line()
		} else {
			l.out.WriteByte(' ')
		}
	case ':':
		l.out.WriteString(": ")
	default:
		l.out.WriteByte(c)
	}
	l.last = c
}

// mendFloats is a copy of v in which every figure that is not finite is nil (or
// 0 where it cannot be nil); the names of those go into missing.
func mendFloats(v reflect.Value, name string, missing map[string]string) reflect.Value {
	const reason = "the figure was not a finite number"
	mended := reflect.New(v.Type()).Elem()
	mended.Set(v)
	switch v.Kind() {
	case reflect.Float64, reflect.Float32:
		if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			missing[name] = reason
			mended.SetZero()
		}
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			break
		}
		elem := mendFloats(v.Elem(), name, missing)
		switch {
		case missing[name] == reason && elem.CanFloat():
			mended.SetZero()
		case v.Kind() == reflect.Interface:
			mended.Set(elem)
		default:
			mended.Set(reflect.New(v.Type().Elem()))
			mended.Elem().Set(elem)
		}
	case reflect.Struct:
		mendStruct(v, mended, name, missing)
	case reflect.Slice, reflect.Map:
		if !v.IsNil() {
			mendMembers(v, mended, name, missing)
		}
	}
	return mended
}

func mendMembers(v, mended reflect.Value, name string, missing map[string]string) {
	if v.Kind() == reflect.Map {
		mended.Set(reflect.MakeMap(v.Type()))
		for _, k := range v.MapKeys() {
			mended.SetMapIndex(k, mendFloats(v.MapIndex(k), name+"."+fmt.Sprint(k), missing))
		}
		return
	}
	mended.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
	for i := range v.Len() {
		mended.Index(i).Set(mendFloats(v.Index(i), name+"["+strconv.Itoa(i)+"]", missing))
	}
}

func mendStruct(v, mended reflect.Value, name string, missing map[string]string) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() || f.Name == "Missing" {
			continue
		}
		field := name
		if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag != "" && !f.Anonymous {
			field = strings.TrimPrefix(name+"."+tag, ".")
		}
		mended.Field(i).Set(mendFloats(v.Field(i), field, missing))
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
	if err := d.Decode(&head); err != nil {
		return nil, err
	}
	for name, v := range head.Run.Axes {
		switch v.(type) {
		case json.Number:
			head.Run.Axes[name], _ = axisValue(v)
		}
	}
	return head.Run.Axes, nil
}

// explainJSON adds the line to an error of the JSON decoder.
func explainJSON(b []byte, err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	offset := int64(-1)
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
	}
	if offset < 0 || offset > int64(len(b)) {
		return err
	}
	return fmt.Errorf("line %d: %w", 1+bytes.Count(b[:offset], []byte("\n")), err)
}
