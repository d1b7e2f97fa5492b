package proc

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func split(chunks ...string) []string {
	var got []string
	s := &splitter{emit: func(l Line) {
		end := ""
		if l.CR {
			end = "\\r"
		}
		if l.More {
			end = "..."
		}
		got = append(got, fmt.Sprintf("%d:%s%s@%d", l.Number, l.Text, end, l.Arrived.Unix()))
	}}
	for i, c := range chunks {
		s.feed([]byte(c), time.Unix(int64(i), 0))
	}
	s.end(time.Unix(99, 0))
	return got
}

func TestSplitter(t *testing.T) {
	for _, c := range []struct {
		in   []string
		want []string
	}{
		{[]string{"a\nb\n"}, []string{"1:a@0", "2:b@0"}},
		{[]string{"a\n\nb"}, []string{"1:a@0", "2:@0", "3:b@0"}},
		{[]string{"a", "b\n"}, []string{"1:ab@1"}},
		{[]string{"ab", "\n"}, []string{"1:ab@0"}}, // arrived with its text
		{[]string{"a\r\nb\r\n"}, []string{"1:a@0", "2:b@0"}},
		{[]string{"a\r", "\nb"}, []string{"1:a@0", "2:b@1"}},
		{[]string{"\r  0%", "\r 50%", "\r100%\n", "done\n"}, []string{`1:  0%\r@0`, `1: 50%\r@1`, "1:100%@2", "2:done@3"}},
		{[]string{"x\ry\rz"}, []string{`1:x\r@0`, `1:y\r@0`, "1:z@0"}},
		{[]string{"\r\r\n"}, []string{"1:@0"}},
		{[]string{""}, nil},
		{[]string{"bar\r"}, []string{`1:bar\r@0`}},
	} {
		if got := split(c.in...); !slices.Equal(got, c.want) {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}

func TestSplitterLongLine(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	got := split(long, long, "tail\nnext\n")
	want := []string{"1:" + long + "...@1", "1:" + long + "...@2", "1:tail@2", "2:next@2"}
	if !slices.Equal(got, want) {
		for _, g := range got {
			t.Logf("%.20s (%d bytes)", g, len(g))
		}
		t.Error("a line of 2 MiB and 4 bytes in pieces: wrong")
	}
}

// FuzzSplitter: however a stream is cut into reads, the lines are the same, no
// byte of text is lost, and numbers are those of the LFs.
func FuzzSplitter(f *testing.F) {
	f.Add([]byte("a\r\nb\rc\n\n\r\r\nx"), 3)
	f.Add([]byte("\r 10%|#\r 20%|##\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		collect := func(size int) (text []byte, ends []string) {
			s := &splitter{emit: func(l Line) {
				text = append(text, l.Text...)
				ends = append(ends, fmt.Sprint(l.Number, l.CR, l.More, len(l.Text)))
				if bytes.ContainsAny(l.Text, "\r\n") || len(l.Text) > maxLine {
					t.Fatalf("line %q", l.Text)
				}
			}}
			for c := range slices.Chunk(b, size) {
				s.feed(c, time.Time{})
			}
			s.end(time.Time{})
			return text, ends
		}
		whole, ends := collect(max(len(b), 1))
		pieces, ends2 := collect(min(max(n, 1), 1000))
		if !bytes.Equal(whole, pieces) || !slices.Equal(ends, ends2) {
			t.Fatalf("cut: %q %v, whole: %q %v", pieces, ends2, whole, ends)
		}
		if want := bytes.Map(dropEnds, b); !bytes.Equal(whole, want) && bytes.Equal(bytes.ToValidUTF8(b, nil), b) {
			t.Fatalf("text %q, want %q", whole, want)
		}
	})
}

func dropEnds(r rune) rune {
	if r == '\r' || r == '\n' {
		return -1
	}
	return r
}

func BenchmarkSplitter(b *testing.B) {
	block := bytes.Repeat([]byte("INFO 07-24 10:00:00 [gpu_worker.py:298] Available KV cache memory: 42.17 GiB\n"), 800)
	n := 0
	s := &splitter{emit: func(Line) { n++ }}
	b.SetBytes(int64(len(block)))
	for b.Loop() {
		s.feed(block, time.Time{})
	}
}
