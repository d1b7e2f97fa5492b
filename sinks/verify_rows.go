package sinks

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"reflect"
	"slices"
	"strings"
)

// verifyTable checks the files of one table and compares its rows with those
// that the run folders give.
func verifyTable[T Row](v *verifier, executions []string) {
	t := tableOf[T]()
	files, err := v.s.allTableFiles(t)
	if err != nil {
		v.fault(tablesDir+"/"+string(t), "", "%v", err)
		return
	}
	where := map[string][]string{} // execution: files of the table
	for _, name := range files {
		faults := v.s.checkPages(tablesDir + "/" + name)
		if len(faults) > 0 {
			v.faults, v.damaged[t] = append(v.faults, faults...), true
			continue
		}
		verifyKeys[T](v, name)
		marks, err := v.s.fileMarks(name)
		if err != nil {
			v.fault(tablesDir+"/"+name, "", "%v", err)
			continue
		}
		for _, m := range marks {
			where[m.Execution] = append(where[m.Execution], name)
		}
	}
	if v.damaged[t] {
		return
	}
	for _, execution := range executions {
		e, err := v.s.Execution(execution)
		if err == nil && e.State == StateComplete {
			compareExecution[T](v, execution, where[execution])
		}
	}
}

// verifyKeys checks that the keys of a file rise: then none is there twice.
func verifyKeys[T Row](v *verifier, name string) {
	pf, file, err := v.s.f.openTable(tablesDir + "/" + name)
	if err != nil {
		v.fault(tablesDir+"/"+name, "", "%v", err)
		return
	}
	defer file.Close() //nolint:errcheck // opened to read
	seen := map[rowKey]bool{}
	var last rowKey
	row, found := int64(0), 0
	err = readFile(pf, Predicate{}, func(rows []T) error {
		for i := range rows {
			k := rowKeyOf(&rows[i])
			switch {
			case k.run < last.run || rising(tableOf[T]()) && k.less(last):
				found++
				v.fault(tablesDir+"/"+name, fmt.Sprintf("row %d", row), "the row %s is out of order", keyText(&rows[i]))
			case k == last && row > 0 || seen[k]:
				found++
				v.fault(tablesDir+"/"+name, fmt.Sprintf("row %d", row), "the row %s is there twice", keyText(&rows[i]))
			}
			if found >= maxFaultsPerFile {
				return errStopped
			}
			if !rising(tableOf[T]()) {
				if k.run != last.run {
					clear(seen)
				}
				seen[k] = true
			}
			last = k
			row++
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStopped) {
		v.fault(tablesDir+"/"+name, "", "%v", err)
	}
}

// maxFaultsPerFile ends the list of one file: after that many more of the same
// say nothing new.
const maxFaultsPerFile = 20

// A rowKey identifies a row of any table.
type rowKey struct {
	run  string
	a, b int64
	s    string
}

func (k rowKey) less(o rowKey) bool {
	return k.run == o.run && (k.a < o.a || k.a == o.a && k.b < o.b)
}

// rising says whether whole keys rise in the files of a table; in the others
// the rows of a run stand in the order of the run.
func rising(t Table) bool { return len(sortColumns(t)) == len(keyColumns(t)) }

func rowKeyOf[T Row](row *T) rowKey {
	k := rowKey{run: any(row).(keyed).key().RunID}
	switch r := any(row).(type) {
	case *RankRow:
		k.a = int64(r.Rank)
	case *TimelineRow:
		k.a, k.b = gpuOrder(r.GPUIndex), int64(r.TS)
	case *PhaseRow:
		k.a, k.s = gpuOrder(r.GPUIndex), string(r.Phase)
	case *BreakdownRow:
		k.a, k.s = int64(r.Rank), r.Component
	case *StepRow:
		k.a, k.s = int64(r.GPUIndex), r.Step
	case *LatencyRow:
		k.a = int64(r.Iteration)
	}
	return k
}

// gpuOrder puts null, the host, last.
func gpuOrder(gpu *int32) int64 {
	if gpu == nil {
		return math.MaxInt64
	}
	return int64(*gpu)
}

func keyText[T Row](row *T) string {
	value := reflect.ValueOf(row).Elem()
	var parts []string
	for _, f := range flatFields(value.Type()) {
		if slices.Contains(keyColumns(tableOf[T]()), columnName(f)) {
			parts = append(parts, columnName(f)+" "+valueText(value.FieldByIndex(f.Index)))
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
func compareExecution[T Row](v *verifier, execution string, files []string) {
	name := tablesDir + "/" + string(tableOf[T]())
	if len(files) > 0 {
		name = tablesDir + "/" + files[0]
	}
	if len(files) > 1 {
		v.fault(name, "", "execution %s is in other files as well: %s", execution, strings.Join(files[1:], ", "))
		return
	}
	if len(files) == 0 && rowsInFolders[T](v.s, execution) {
		v.fault(name, "", "it has no rows of execution %s; `vramsweep compact --rebuild` writes them from its runs", execution)
		return
	}
	nextTable, stopTable := iter.Pull2(tableRows[T](v.s, execution, files))
	defer stopTable()
	nextFolder, stopFolder := iter.Pull2(folderRows[T](v.s, execution))
	defer stopFolder()
	c := &rowComparison[T]{v: v, file: name}
	inTable, terr, tok := nextTable()
	inFolder, ferr, fok := nextFolder()
	for (tok || fok) && c.found < maxFaultsPerFile {
		if terr != nil || ferr != nil { // the files themselves were named already
			return
		}
		order := sideBySide(&inTable, tok, &inFolder, fok)
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
func sideBySide[T Row](a *T, aok bool, b *T, bok bool) int {
	switch {
	case !aok:
		return 1
	case !bok:
		return -1
	}
	return strings.Compare(any(a).(keyed).key().RunID, any(b).(keyed).key().RunID)
}

// tableRows are the rows of an execution in files of tables/.
func tableRows[T Row](s *Store, execution string, files []string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		r := &storeReader[T]{s: s, where: Predicate{Execution: execution}, yield: yield, more: true}
		for _, name := range files {
			if r.more {
				r.parquet(tablesDir+"/"+name, nil)
			}
		}
	}
}

func rowsInFolders[T Row](s *Store, execution string) bool {
	for _, err := range folderRows[T](s, execution) {
		return err == nil
	}
	return false
}

// folderRows are the rows that the folders of an execution give.
func folderRows[T Row](s *Store, execution string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		r := &storeReader[T]{s: s, yield: yield, more: true}
		r.folders(execution)
	}
}

// A rowComparison names differences, one for a run.
type rowComparison[T Row] struct {
	v     *verifier
	file  string
	last  string // run that was named
	found int
}

func (c *rowComparison[T]) only(row *T, what string) {
	c.name(row, "the row %s %s", keyText(row), what)
}

func (c *rowComparison[T]) name(row *T, format string, args ...any) {
	run := any(row).(keyed).key().RunID
	if run == c.last {
		return
	}
	c.last = run
	c.found++
	c.v.fault(c.file, "run "+run, format, args...)
}

func (c *rowComparison[T]) same(a, b *T) {
	if runs, ok := any(a).(*RunRow); ok {
		exactNumbers(runs.Axes)
		exactNumbers(any(b).(*RunRow).Axes)
	}
	if reflect.DeepEqual(a, b) {
		return
	}
	x, y := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for _, f := range flatFields(x.Type()) {
		p, q := x.FieldByIndex(f.Index), y.FieldByIndex(f.Index)
		if reflect.DeepEqual(p.Interface(), q.Interface()) {
			continue
		}
		if columnName(f) == "json_sha256" {
			c.name(a, "its run.json was changed after the table was written: SHA-256 %s, was %s", valueText(q), valueText(p))
			return
		}
		c.name(a, "%s: the table says %s = %s, the run's folder says %s", keyText(a), columnName(f), valueText(p), valueText(q))
		return
	}
	if ra, ok := any(a).(*RunRow); ok {
		c.name(a, "the table says axes %v, run.json says %v", ra.Axes, any(b).(*RunRow).Axes)
	}
}

// exactNumbers makes whole doubles whole numbers: JSON does not tell them apart.
func exactNumbers(axes map[string]any) {
	for name, v := range axes {
		axes[name], _ = axisValue(v)
	}
}
