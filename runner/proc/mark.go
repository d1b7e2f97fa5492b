package proc

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"time"
)

// MarkVar is the environment variable that marks what a run starts.
const MarkVar = "VRAMSWEEP_RUN"

// FolderMark is the part of a mark that names an output folder: the same for
// every runner that works in dir, another one for every other folder. With it
// a resumed execution finds what a killed runner left behind:
//
//	mark := FolderMark(dir)        // for Spec.Mark and EndMarked
//
// The folder must exist; links in its path are followed, so that two names of
// a folder are one, and a folder that was renamed keeps its mark.
func FolderMark(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("identity of folder %s: %w", dir, err)
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", fmt.Errorf("identity of folder %s: %w", dir, err)
	}
	id, err := fileID(real)
	if err != nil {
		return "", fmt.Errorf("identity of folder %s: %w", dir, err)
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:8]), nil
}

// uniqueMark makes one Start's own mark from the one that was asked for.
func uniqueMark(prefix string) string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	if prefix == "" {
		prefix = "anonymous"
	}
	return prefix + "." + hex.EncodeToString(b[:])
}

// EndMarked ends the live processes whose environment holds the mark (the mark
// itself or one that Start derived from it) and what these started meanwhile:
// SIGTERM, grace, SIGKILL. root is that of /proc, "" for the usual one. Processes
// of other users cannot be read and are left alone. It returns what it ended; Left
// is set on what could not be ended. Call it only under the lock of the folder whose mark it is:
// then the runner that started them is dead.
func EndMarked(ctx context.Context, root, mark string, grace time.Duration) ([]Leftover, error) {
	if mark == "" {
		return nil, fmt.Errorf("end marked processes: the mark is empty")
	}
	t, err := newTable(root)
	if err != nil {
		return nil, err
	}
	return t.endMarked(ctx, mark, grace)
}
