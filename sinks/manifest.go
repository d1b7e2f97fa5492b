package sinks

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// manifestName holds a checksum of every file in tables/: page checksums do
// not cover footers, and most readers ignore them.
const manifestName = "manifest.json"

// A manifest is written before and after every change of tables/. Between the
// two a file may have any of its sums, or be missing if it is pending, and the
// next one to work in tables/ finds out which it is.
type manifest struct {
	SchemaVersion string                    `json:"schema_version"`
	Files         map[string]*manifestEntry `json:"files"` // by path in tables/
}

type manifestEntry struct {
	Sums    []fileSum `json:"sums"`
	Pending bool      `json:"pending,omitempty"`
}

type fileSum struct {
	Bytes  int64  `json:"bytes"`
	Rows   int64  `json:"rows"`
	CRC32C uint32 `json:"crc32c"`
}

// same compares what can be told without opening the file as Parquet.
func (a fileSum) same(b fileSum) bool { return a.Bytes == b.Bytes && a.CRC32C == b.CRC32C }

func (s *Store) readManifest() (*manifest, error) {
	m := &manifest{SchemaVersion: runner.SchemaVersion, Files: map[string]*manifestEntry{}}
	b, err := s.f.readFile(manifestName)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		err = json.Unmarshal(b, m)
	}
	if err != nil {
		return m, fmt.Errorf("reading %s: %w; `vramsweep compact` makes it again", s.f.path(manifestName), err)
	}
	for name, entry := range m.Files {
		if entry == nil {
			delete(m.Files, name)
		}
	}
	return m, nil
}

func (s *Store) writeManifest(m *manifest) error {
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	return s.f.replace(manifestName, func(w io.Writer) error {
		_, err := w.Write(append(b, '\n'))
		return err
	})
}

// sumFile reads a file whole.
func (s *Store) sumFile(name string) (fileSum, error) {
	file, err := s.f.open(name)
	if err != nil {
		return fileSum{}, err
	}
	sum := crc32.New(castagnoli())
	n, err := io.Copy(sum, file)
	return fileSum{Bytes: n, CRC32C: sum.Sum32()}, errors.Join(err, file.Close())
}

// settleTables ends what somebody who died left half done in tables/. It needs
// the lock of the tables.
func (s *Store) settleTables(report *Recovery) error {
	for _, t := range Tables() {
		live, old := tablesDir+"/"+string(t), stagingDir+"/old-"+string(t)
		if !s.f.exists(live) && s.f.exists(old) {
			if err := s.f.rename(old, live); err != nil {
				return err
			}
		}
	}
	if s.f.exists(stagingDir) {
		if report != nil {
			report.Removed = append(report.Removed, stagingDir)
		}
		if err := s.f.removeAll(stagingDir); err != nil {
			return err
		}
	}
	return s.settleManifest()
}

func (s *Store) settleManifest() error {
	m, err := s.readManifest()
	if err != nil { // it can be made again; what is in doubt is read to its end
		m = &manifest{SchemaVersion: runner.SchemaVersion, Files: map[string]*manifestEntry{}}
	}
	files, err := s.tableFiles("")
	if err != nil {
		return err
	}
	changed := false
	for name, entry := range m.Files {
		if !entry.Pending {
			continue
		}
		changed, entry.Pending = true, false
		if !slices.Contains(files, name) {
			delete(m.Files, name)
			continue
		}
		is, err := s.sumFile(tablesDir + "/" + name)
		if err != nil {
			return err
		}
		for _, sum := range entry.Sums {
			if sum.same(is) {
				entry.Sums = []fileSum{sum}
				break
			}
		}
	}
	for _, name := range files {
		if m.Files[name] != nil {
			continue
		}
		sum, err := s.adopt(tablesDir + "/" + name)
		if err != nil {
			continue // verify names it
		}
		changed = true
		m.Files[name] = &manifestEntry{Sums: []fileSum{sum}}
	}
	if !changed {
		return nil
	}
	return s.writeManifest(m)
}

// adopt takes a file of which the manifest knows nothing, if it can be read to its end.
func (s *Store) adopt(name string) (fileSum, error) {
	faults := s.checkPages(name)
	if len(faults) > 0 {
		return fileSum{}, errors.New(faults[0].What)
	}
	sum, err := s.sumFile(name)
	if err != nil {
		return sum, err
	}
	pf, file, err := s.f.openTable(name)
	if err != nil {
		return sum, err
	}
	sum.Rows = pf.NumRows()
	return sum, file.Close()
}

// tableFiles are the settled Parquet files of a table (of all where it is ""), as
// paths in tables/, sorted; live ones are not among them.
func (s *Store) tableFiles(table Table) ([]string, error) {
	files, err := s.allTableFiles(table)
	return slices.DeleteFunc(files, func(name string) bool { return liveExecution(name) != "" }), err
}

// allTableFiles are the settled and the live ones.
func (s *Store) allTableFiles(table Table) ([]string, error) {
	tables := []Table{table}
	if table == "" {
		tables = Tables()
	}
	var files []string
	for _, t := range tables {
		months, err := s.f.dirs(tablesDir + "/" + string(t))
		if err != nil {
			return nil, err
		}
		for _, month := range months {
			entries, err := s.f.list(path.Join(tablesDir, string(t), month))
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				if e.Type().IsRegular() && strings.HasSuffix(e.Name(), ".parquet") && !strings.HasPrefix(e.Name(), ".") {
					files = append(files, path.Join(string(t), month, e.Name()))
				}
			}
		}
	}
	return files, nil
}
