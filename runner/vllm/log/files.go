package log

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/vramsweep/vramsweep/runner"
)

// A NamedReader is a log and what to call it: a file's name, "stdin".
type NamedReader struct {
	Name string
	R    io.Reader
}

// A Log is what ReadLogs found.
type Log struct {
	Accounts []*runner.Account // one an engine; empty: nothing of vLLM's is in it
	Events   []runner.LogEvent
	Bytes    int64 // read, after decompression
	Lines    int64
	Other    string // the engine that the log is of, where it is of another than vLLM
	More     int64  // engines that are in it and not among Accounts: 256 are told
}

// Unread is the number of lines that look like memory figures of vLLM and were
// not understood.
func (l *Log) Unread() int64 {
	var n int64
	for _, a := range l.Accounts {
		n += a.UnreadCount
	}
	return n
}

// ReadLogs reads the logs of one run: one file, or its stdout and stderr, plain
// or compressed with gzip or zstd (told by their content). It needs the same
// memory however long they are. What was read before an error is returned
// with it.
func ReadLogs(files ...NamedReader) (*Log, error) {
	return readLogs(NewReader(ReaderOptions{}), files...)
}

// ReadAccounts is ReadLogs for a log of whatever engines: without the moments of
// the run, which grow with it, and with an account for each data-parallel rank.
func ReadAccounts(files ...NamedReader) (*Log, error) {
	return readLogs(NewReader(ReaderOptions{NoEvents: true, Apart: true}), files...)
}

func readLogs(rd *Reader, files ...NamedReader) (*Log, error) {
	log := &Log{}
	var err error
	for _, f := range files {
		if e := readFile(rd, f, log); e != nil {
			err = errors.Join(err, e)
		}
	}
	log.Accounts, log.Events, log.More = rd.Accounts(), rd.Events(), rd.more
	if rd.other != "" && !rd.knows() {
		log.Other, log.Accounts = rd.other, nil // its failures are its own
	}
	return log, err
}

// knows reports whether a line of the log is vLLM's own.
func (r *Reader) knows() bool {
	return slices.ContainsFunc(r.order, func(n *run) bool { return n.known > 0 || n.unreadCount > 0 })
}

// PairLogs groups files by run, in their order: a stdout and a stderr whose
// paths are the same but for that word (and any folder's stdout.log and
// stderr.log) are one run, every other file is a run of its own.
func PairLogs(paths []string) [][]string {
	var runs [][]string
	at := make(map[string]int)
	for _, path := range paths {
		dir, name := filepath.Split(path)
		key := dir + streamWord.ReplaceAllString(name, "*")
		if key == path {
			runs = append(runs, []string{path})
			continue
		}
		if i, ok := at[key]; ok {
			runs[i] = append(runs[i], path)
			continue
		}
		at[key] = len(runs)
		runs = append(runs, []string{path})
	}
	return runs
}

var streamWord = regexp.MustCompile(`(?i)\bstd(?:out|err)\b|\.(?:out|err)$`)

const (
	readBuffer = 256 << 10
	longLine   = 1 << 20 // what of a line is kept while its end is looked for
)

// Decompress gives what a log holds that may be compressed with gzip or zstd.
func Decompress(r io.Reader) (io.Reader, func(), error) {
	return decompress(bufio.NewReaderSize(r, readBuffer))
}

func readFile(rd *Reader, f NamedReader, log *Log) error {
	src := bufio.NewReaderSize(f.R, readBuffer)
	in, closeIn, err := decompress(src)
	if err != nil {
		return fmt.Errorf("reading %s: %w", f.Name, err)
	}
	defer closeIn()
	br := src
	if in != io.Reader(src) {
		br = bufio.NewReaderSize(in, readBuffer)
	}
	start, _ := br.Peek(sniffLength) // what is there: an error comes again with the first line
	u := newUnwrapper(rd, f.Name, start)
	defer u.flush()
	var long []byte
	for {
		chunk, err := br.ReadSlice('\n')
		log.Bytes += int64(len(chunk))
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long = growLine(rd, f.Name, long, chunk)
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return fmt.Errorf("reading %s after %d bytes: %w; what was read until there is used", f.Name, log.Bytes, err)
		}
		if line := trimLF(chunk); len(long) > 0 {
			u.line(growLine(rd, f.Name, long, line))
			long = long[:0]
			log.Lines++
		} else if len(chunk) > 0 {
			u.line(line)
			log.Lines++
		}
		if err != nil {
			return nil
		}
	}
}

// growLine appends to a line that is longer than the buffer. Bars that end in
// CR are handed on at once; what goes beyond longLine is dropped.
func growLine(rd *Reader, name string, long, chunk []byte) []byte {
	before := len(long)
	long = append(long, chunk...)
	if i := bytes.LastIndexByte(chunk, '\r'); i >= 0 && before+i < len(long)-1 {
		i += before
		rd.Part(name, long[:i], time.Time{})
		long = append(long[:0], long[i+1:]...)
	}
	if len(long) > longLine {
		long = long[:longLine]
	}
	return long
}

// trimLF leaves a CR before it alone: splitLine knows what to do with it.
func trimLF(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		return b[:n-1]
	}
	return b
}

// decompress tells gzip and zstd by their first bytes.
func decompress(src *bufio.Reader) (io.Reader, func(), error) {
	magic, _ := src.Peek(4)
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(src)
		if err != nil {
			return nil, nil, fmt.Errorf("it begins as gzip and is none: %w", err)
		}
		return z, func() { _ = z.Close() }, nil // nothing is lost: only reading
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(src,
			zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			return nil, nil, fmt.Errorf("it begins as zstd and is none: %w", err)
		}
		return z, z.Close, nil
	}
	return src, func() {}, nil
}
