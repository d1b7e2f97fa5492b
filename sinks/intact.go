package sinks

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// What was written is checked before it is used. run.json and executions/*.json begin with a line that holds the
// SHA-256 of all that follows it; run.json names every other file of its folder with its own; the files of tables/
// have one in their footer (table.Seal).
const sealHead, sealTail = "{\n  \"sha256\": \"", "\",\n"

// sealJSON puts the line at the head of an indented JSON object.
func sealJSON(b []byte) []byte {
	rest, ok := bytes.CutPrefix(b, []byte("{\n"))
	if !ok {
		return b // an empty object
	}
	sum := sha256.Sum256(rest)
	return slices.Concat([]byte(sealHead+hex.EncodeToString(sum[:])+sealTail), rest)
}

// checkJSON compares an object with the line at its head; one without it is by others, or older.
func checkJSON(b []byte) error {
	rest, ok := bytes.CutPrefix(b, []byte(sealHead))
	if !ok || len(rest) < 2*sha256.Size || !bytes.HasPrefix(rest[2*sha256.Size:], []byte(sealTail)) {
		return nil
	}
	sum := sha256.Sum256(rest[2*sha256.Size+len(sealTail):])
	if was := string(rest[:2*sha256.Size]); was != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("it was changed since it was written: its SHA-256 is %x, not %s", sum, was)
	}
	return nil
}

// maxHashed bounds what is read of a file that an engine left: a trace has many GiB.
const maxHashed = 256 << 20

// files lists the files beside run.json with their checksums, but for the raw logs, which have their own list.
func (s *Store) files(rel string, r *runner.Result) ([]runner.FileInfo, error) {
	entries, err := s.f.list(rel)
	var all []runner.FileInfo
	for _, e := range entries {
		known := slices.ContainsFunc(r.Files, func(f runner.FileInfo) bool { return f.Name == e.Name() }) ||
			slices.ContainsFunc(r.RawLogs, func(l runner.RawLog) bool { return l.Path == e.Name() })
		if known || !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") ||
			slices.Contains([]string{resultName, jobName, journalName, journalIndex}, e.Name()) {
			continue
		}
		info := runner.FileInfo{Name: e.Name()}
		if info.Bytes, info.SHA256, err = s.sumOf(rel + "/" + e.Name()); err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	return append(r.Files, all...), err
}

// sumOf is the size of a file and its SHA-256; "" where it is larger than maxHashed.
func (s *Store) sumOf(name string) (int64, string, error) {
	in, err := s.f.open(name)
	if err != nil {
		return 0, "", err
	}
	defer in.Close() //nolint:errcheck // opened to read
	info, err := in.Stat()
	if err != nil || info.Size() > maxHashed {
		return info.Size(), "", err
	}
	h := sha256.New()
	n, err := io.Copy(h, in)
	return n, hex.EncodeToString(h.Sum(nil)), err
}

// intact compares a file of a run with what run.json says of it.
func (s *Store) intact(dir, file string, size int64, sum string) error {
	if !filepath.IsLocal(file) {
		return fmt.Errorf("run.json names a file outside of its folder: %s", file)
	}
	in, err := s.f.open(path.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("it is missing, but run.json names it (%d bytes)", size)
	}
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // opened to read
	info, err := in.Stat()
	switch {
	case err != nil:
		return err
	case info.Size() != size:
		return fmt.Errorf("it has %d bytes, run.json says %d", info.Size(), size)
	case sum == "":
		return nil // it was too large
	}
	h := sha256.New()
	if _, err := io.Copy(h, in); err != nil {
		return err
	}
	if is := hex.EncodeToString(h.Sum(nil)); is != sum {
		return fmt.Errorf("its SHA-256 is %s, run.json says %s", is, sum)
	}
	return nil
}

// damage is what is wrong with the files of a run's folder, run.json among them.
func (s *Store) damage(dir string) (faults []Fault) {
	r, err := s.result(dir)
	if err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner
		}
		return []Fault{{File: dir + "/" + resultName, What: err.Error()}}
	}
	check := func(file string, size int64, sum string) {
		if err := s.intact(dir, file, size, sum); err != nil {
			if !filepath.IsLocal(file) {
				file = resultName
			}
			faults = append(faults, Fault{File: path.Join(dir, file), What: err.Error()})
		}
	}
	for _, f := range r.Files {
		check(f.Name, f.Bytes, f.SHA256)
	}
	for _, l := range r.RawLogs {
		if l.SHA256 != "" {
			check(l.Path, l.Bytes, l.SHA256)
		}
	}
	return faults
}

// A DamagedError names files that are not as they were written. What is of other runs was done.
type DamagedError struct{ Faults []Fault }

func (e *DamagedError) Error() string {
	const most = 5
	var lines []string
	for _, f := range e.Faults[:min(len(e.Faults), most)] {
		lines = append(lines, f.String())
	}
	if n := len(e.Faults) - most; n > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", n))
	}
	return fmt.Sprintf("damaged, and left out: %s; `vramsweep recover` sets such runs aside, `run --resume` repeats them",
		strings.Join(lines, "; "))
}

// damaged is nil where there is no fault.
func damaged(faults []Fault) error {
	if len(faults) == 0 {
		return nil
	}
	return &DamagedError{Faults: faults}
}

// timelineOf checks the timeline of a run before it is used. A run that is repeated meanwhile does not exist
// (fs.ErrNotExist): its run.json is the first of its files to go.
func (s *Store) timelineOf(run *runHead) error {
	for _, f := range run.files {
		if f.Name != timelineName {
			continue
		}
		if err := s.intact(run.rel, f.Name, f.Bytes, f.SHA256); err != nil {
			if now, gone := s.runHead(run.rel); gone == nil && !slices.Equal(now.files, run.files) {
				return fs.ErrNotExist
			} else if errors.Is(gone, fs.ErrNotExist) {
				return gone
			}
			return &DamagedError{Faults: []Fault{{File: run.rel + "/" + f.Name, What: err.Error()}}}
		}
	}
	return nil
}

// A runHead is what of a run.json orders runs, and names its files.
type runHead struct {
	rel   string
	id    string
	files []runner.FileInfo
}

func (s *Store) runHead(rel string) (*runHead, error) {
	var head struct {
		Run struct {
			RunID string `json:"run_id"`
		} `json:"run"`
		Files []runner.FileInfo `json:"files"`
	}
	b, err := s.f.readFile(rel + "/" + resultName)
	if err != nil {
		return nil, err
	}
	if err = checkJSON(b); err == nil {
		err = json.Unmarshal(b, &head)
	}
	if err == nil && head.Run.RunID == "" {
		err = errors.New("it names no run")
	}
	if err != nil {
		return nil, &DamagedError{Faults: []Fault{{File: rel + "/" + resultName, What: err.Error()}}}
	}
	return &runHead{rel: rel, id: head.Run.RunID, files: head.Files}, nil
}

// orderedRuns are the finished runs of an execution, or of a shard, sorted by run id. Damaged ones are named in the
// error, the others returned.
func (s *Store) orderedRuns(e *Execution) (heads []*runHead, err error) {
	folders, err := s.runsOf(e)
	if err != nil {
		return nil, err
	}
	var faults []Fault
	for _, rel := range folders {
		head, err := s.runHead(rel)
		var bad *DamagedError
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.As(err, &bad):
			faults = append(faults, bad.Faults...)
		case err != nil:
			faults = append(faults, Fault{File: rel + "/" + resultName, What: err.Error()})
		default:
			heads = append(heads, head)
		}
	}
	slices.SortFunc(heads, func(a, b *runHead) int { return strings.Compare(a.id, b.id) })
	return heads, damaged(faults)
}
