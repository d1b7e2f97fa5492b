// Package proctest looks for processes that a run left. Only tests import it.
package proctest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Marked lists the live processes whose environment holds the mark: the mark
// itself or one that proc.Start derived from it. Processes of other users cannot
// be read and are not listed.
func Marked(mark string) ([]int, error) {
	dirs, err := filepath.Glob("/proc/[1-9]*")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() || !lives(dir) {
			continue
		}
		env, _ := os.ReadFile(filepath.Join(dir, "environ")) // it may have gone meanwhile
		for one := range bytes.SplitSeq(env, []byte{0}) {
			v, ok := strings.CutPrefix(string(one), "VRAMSWEEP_RUN=")
			if ok && (v == mark || strings.HasPrefix(v, mark+".")) {
				found = append(found, pid)
			}
		}
	}
	return found, nil
}

// lives reports whether a process is no zombie.
func lives(dir string) bool {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	_, rest, ok := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	return err == nil && ok && !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}
