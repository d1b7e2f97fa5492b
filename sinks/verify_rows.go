package sinks

import (
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/sinks/table"
)

// verify checks the files of one table (their pages, that keys rise, that they
// hold the executions that they name) and compares their rows with those that the
// run folders give.
func (t *rowTable[T]) verify(v *verifier, executions []string) {
	names, err := v.s.tableFiles(t.name)
	if v.failed(tablesDir+"/"+string(t.name), err) {
		return
	}
	bad := map[string]bool{}
	for _, name := range names {
		faults := v.s.checkPages(tablesDir + "/" + name)
		v.faults, bad[name] = append(v.faults, faults...), len(faults) > 0
	}
	files, err := v.s.footers(t.name)
	damaged := err != nil             // comparing would only repeat that
	where := map[string][]tableFile{} // execution, or its shard: files of the table
	for _, f := range files {
		if damaged = damaged || bad[f.name]; bad[f.name] {
			continue
		}
		t.verifyKeys(v, &f)
		for _, m := range f.marks {
			part := fileName(m.Execution, m.Shard)
			where[part] = append(where[part], f)
		}
	}
	for _, execution := range executions {
		e, err := v.s.Execution(execution)
		if damaged || err != nil {
			continue
		}
		for _, part := range partsOf(e) {
			if part.State == StateComplete {
				t.compareExecution(v, part, where[fileName(part.ID, part.Shard)])
			}
		}
	}
}

// verifyKeys checks that the keys of a file rise: then none is there twice.
func (t *rowTable[T]) verifyKeys(v *verifier, in *tableFile) {
	name := tablesDir + "/" + in.name
	seen := map[rowKey]bool{}
	var last rowKey
	row, found := int64(0), 0
	fault := func(at *T, what string) {
		found++
		v.fault(name, fmt.Sprintf("row %d", row), "the row %s %s", t.keyText(at), what)
	}
	check := func(rows []T) error {
		for i := range rows {
			k, execution := t.rowKey(&rows[i]), t.key(&rows[i]).Execution
			switch {
			case k.run < last.run || t.rising() && k.less(last):
				fault(&rows[i], "is out of order")
			case k == last && row > 0 || seen[k]:
				fault(&rows[i], "is there twice")
			case k.run != last.run && len(in.marks) > 0 && !in.names(execution):
				fault(&rows[i], "is of an execution that the file does not name: "+execution)
			}
			if found >= maxFaultsPerFile {
				return errStopped
			}
			if !t.rising() {
				if k.run != last.run {
					clear(seen)
				}
				seen[k] = true
			}
			last = k
			row++
		}
		return nil
	}
	err := v.s.openTable(name, func(f *table.File) error { return t.read(f, Predicate{}, check) })
	if err != nil && !errors.Is(err, errStopped) {
		v.fault(name, "", "%v", err)
	}
}

// maxFaultsPerFile ends the list of one file: after that many more of the same
// say nothing new.
const maxFaultsPerFile = 20

func (t *rowTable[T]) keyText(row *T) string {
	value := reflect.ValueOf(row).Elem()
	var parts []string
	for _, f := range table.Fields(value.Type()) {
		if name := table.ColumnName(f); slices.Contains(t.keys, name) {
			parts = append(parts, name+" "+valueText(value.FieldByIndex(f.Index)))
		}
	}
	return strings.Join(parts, ", ")
}

func valueText(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return "null"
		}
		v = v.Elem()
	}
	return fmt.Sprint(v.Interface())
}

// compareExecution walks the table and the run folders side by side.
func (t *rowTable[T]) compareExecution(v *verifier, part *Execution, files []tableFile) {
	execution := fileName(part.ID, part.Shard)
	name := tablesDir + "/" + string(t.name)
	if len(files) > 0 {
		name = tablesDir + "/" + files[0].name
	}
	if len(files) > 1 {
		v.fault(name, "", "execution %s is in other files as well: %s, ...", execution, files[1].name)
		return
	}
	rows := func(read func(*storeReader[T])) iter.Seq2[T, error] {
		return func(yield func(T, error) bool) {
			read(&storeReader[T]{rowTable: t, s: v.s, where: Predicate{Execution: part.ID}, yield: yield, more: true})
		}
	}
	c := &rowComparison[T]{rowTable: t, v: v, file: name}
	inFolders := rows(func(r *storeReader[T]) { r.folders(part) })
	if len(files) > 0 {
		c.in = &files[0]
		c.walk(rows(func(r *storeReader[T]) { r.parquet(name, nil) }), inFolders)
		return
	}
	for _, err := range inFolders {
		if err == nil {
			v.fault(name, "", "it has no rows of execution %s; `vramsweep compact --rebuild` writes them from its runs",
				execution)
		}
		return
	}
}

// A rowComparison names differences, one for a run.
type rowComparison[T Row] struct {
	*rowTable[T]
	v     *verifier
	file  string
	in    *tableFile
	last  string // run that was named
	found int
}

// walk goes through both sides by run id; those that end in an error were named already.
func (c *rowComparison[T]) walk(inTable, inFolders iter.Seq2[T, error]) {
	nextTable, stopTable := iter.Pull2(inTable)
	defer stopTable()
	nextFolder, stopFolder := iter.Pull2(inFolders)
	defer stopFolder()
	a, aerr, aok := nextTable()
	b, berr, bok := nextFolder()
	for (aok || bok) && aerr == nil && berr == nil && c.found < maxFaultsPerFile {
		order := strings.Compare(c.key(&a).RunID, c.key(&b).RunID)
		switch {
		case !bok || aok && order < 0:
			c.note(&a, "the row %s stands in the table but in no run folder", c.keyText(&a))
			a, aerr, aok = nextTable()
		case !aok || order > 0:
			c.note(&b, "the row %s of the run's folder is missing in the table; "+
				"`vramsweep compact --rebuild` writes it again", c.keyText(&b))
			b, berr, bok = nextFolder()
		default:
			c.same(&a, &b)
			a, aerr, aok = nextTable()
			b, berr, bok = nextFolder()
		}
	}
}

func (c *rowComparison[T]) note(row *T, format string, args ...any) {
	run := c.key(row).RunID
	if run == c.last {
		return
	}
	c.last = run
	c.found++
	c.v.fault(c.file, "run "+run, format, args...)
}

func (c *rowComparison[T]) same(a, b *T) {
	if c.axes != nil {
		exactNumbers(*c.axes(a))
		exactNumbers(*c.axes(b))
	}
	if reflect.DeepEqual(a, b) {
		return
	}
	x, y := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for _, f := range table.Fields(x.Type()) {
		p, q := x.FieldByIndex(f.Index), y.FieldByIndex(f.Index)
		if reflect.DeepEqual(p.Interface(), q.Interface()) || !c.in.HasColumn(table.ColumnName(f)) {
			continue // an older file lacks columns that came later
		}
		if table.ColumnName(f) == "json_sha256" {
			c.note(a, "its run.json was changed after the table was written: SHA-256 %s, was %s", valueText(q), valueText(p))
			return
		}
		c.note(a, "%s: the table says %s = %s, the run's folder says %s",
			c.keyText(a), table.ColumnName(f), valueText(p), valueText(q))
		return
	}
	if c.axes != nil && !reflect.DeepEqual(*c.axes(a), *c.axes(b)) {
		c.note(a, "the table says axes %v, run.json says %v", *c.axes(a), *c.axes(b))
	}
}

// exactNumbers makes whole doubles whole numbers: JSON does not tell them apart.
func exactNumbers(axes map[string]any) {
	for name, v := range axes {
		axes[name], _ = axisValue(v)
	}
}
