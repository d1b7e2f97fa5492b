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
	files, err := v.s.tableFiles(t.name)
	if err != nil {
		v.fault(tablesDir+"/"+string(t.name), "", "%v", err)
		return
	}
	damaged := false               // comparing would only repeat that
	where := map[string][]string{} // execution: files of the table
	for _, name := range files {
		if faults := v.s.checkPages(tablesDir + "/" + name); len(faults) > 0 {
			v.faults, damaged = append(v.faults, faults...), true
			continue
		}
		marks, err := v.s.fileMarks(name)
		if err != nil {
			v.fault(tablesDir+"/"+name, "", "%v", err)
			continue
		}
		t.verifyKeys(v, name, marks)
		for _, m := range marks {
			where[m.Execution] = append(where[m.Execution], name)
		}
	}
	for _, execution := range executions {
		if e, err := v.s.Execution(execution); !damaged && err == nil && e.State == StateComplete {
			t.compareExecution(v, execution, where[execution])
		}
	}
}

// verifyKeys checks that the keys of a file rise: then none is there twice.
func (t *rowTable[T]) verifyKeys(v *verifier, name string, marks []Mark) {
	seen := map[rowKey]bool{}
	var last rowKey
	row, found := int64(0), 0
	fault := func(at *T, what string) {
		found++
		v.fault(tablesDir+"/"+name, fmt.Sprintf("row %d", row), "the row %s %s", t.keyText(at), what)
	}
	check := func(rows []T) error {
		for i := range rows {
			k, execution := t.rowKey(&rows[i]), t.key(&rows[i]).Execution
			switch {
			case k.run < last.run || t.rising() && k.less(last):
				fault(&rows[i], "is out of order")
			case k == last && row > 0 || seen[k]:
				fault(&rows[i], "is there twice")
			case k.run != last.run && len(marks) > 0 &&
				!slices.ContainsFunc(marks, func(m Mark) bool { return m.Execution == execution }):
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
	err := v.s.openTable(tablesDir+"/"+name, func(f *table.File) error { return t.read(f, Predicate{}, check) })
	if err != nil && !errors.Is(err, errStopped) {
		v.fault(tablesDir+"/"+name, "", "%v", err)
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
func (t *rowTable[T]) compareExecution(v *verifier, execution string, files []string) {
	name := tablesDir + "/" + string(t.name)
	if len(files) > 0 {
		name = tablesDir + "/" + files[0]
	}
	if len(files) > 1 {
		v.fault(name, "", "execution %s is in other files as well: %s", execution, strings.Join(files[1:], ", "))
		return
	}
	if len(files) == 0 && t.rowsInFolders(v.s, execution) {
		v.fault(name, "", "it has no rows of execution %s; `vramsweep compact --rebuild` writes them from its runs",
			execution)
		return
	}
	nextTable, stopTable := iter.Pull2(t.tableRows(v.s, execution, files))
	defer stopTable()
	nextFolder, stopFolder := iter.Pull2(t.folderRows(v.s, execution))
	defer stopFolder()
	c := &rowComparison[T]{rowTable: t, v: v, file: name}
	inTable, terr, tok := nextTable()
	inFolder, ferr, fok := nextFolder()
	for (tok || fok) && c.found < maxFaultsPerFile {
		if terr != nil || ferr != nil { // the files themselves were named already
			return
		}
		order := t.sideBySide(&inTable, tok, &inFolder, fok)
		switch {
		case order < 0:
			c.only(&inTable, "stands in the table but in no run folder")
		case order > 0:
			c.only(&inFolder, "of the run's folder is missing in the table; `vramsweep compact --rebuild` writes it again")
		default:
			c.same(&inTable, &inFolder)
		}
		if order <= 0 {
			inTable, terr, tok = nextTable()
		}
		if order >= 0 {
			inFolder, ferr, fok = nextFolder()
		}
	}
}

// sideBySide says which of two rows comes first by its run; one that is not
// there comes last.
func (t *rowTable[T]) sideBySide(a *T, aok bool, b *T, bok bool) int {
	switch {
	case !aok:
		return 1
	case !bok:
		return -1
	}
	return strings.Compare(t.key(a).RunID, t.key(b).RunID)
}

// tableRows are the rows of an execution in files of tables/.
func (t *rowTable[T]) tableRows(s *Store, execution string, files []string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		r := &storeReader[T]{rowTable: t, s: s, where: Predicate{Execution: execution}, yield: yield, more: true}
		for _, name := range files {
			if r.more {
				r.parquet(tablesDir+"/"+name, nil)
			}
		}
	}
}

func (t *rowTable[T]) rowsInFolders(s *Store, execution string) bool {
	for _, err := range t.folderRows(s, execution) {
		return err == nil
	}
	return false
}

// folderRows are the rows that the folders of an execution give.
func (t *rowTable[T]) folderRows(s *Store, execution string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		r := &storeReader[T]{rowTable: t, s: s, yield: yield, more: true}
		r.folders(execution)
	}
}

// A rowComparison names differences, one for a run.
type rowComparison[T Row] struct {
	*rowTable[T]
	v     *verifier
	file  string
	last  string // run that was named
	found int
}

func (c *rowComparison[T]) only(row *T, what string) {
	c.note(row, "the row %s %s", c.keyText(row), what)
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
		if reflect.DeepEqual(p.Interface(), q.Interface()) {
			continue
		}
		if table.ColumnName(f) == "json_sha256" {
			c.note(a, "its run.json was changed after the table was written: SHA-256 %s, was %s", valueText(q), valueText(p))
			return
		}
		c.note(a, "%s: the table says %s = %s, the run's folder says %s",
			c.keyText(a), table.ColumnName(f), valueText(p), valueText(q))
		return
	}
	if c.axes != nil {
		c.note(a, "the table says axes %v, run.json says %v", *c.axes(a), *c.axes(b))
	}
}

// exactNumbers makes whole doubles whole numbers: JSON does not tell them apart.
func exactNumbers(axes map[string]any) {
	for name, v := range axes {
		axes[name], _ = axisValue(v)
	}
}
