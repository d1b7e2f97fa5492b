package log

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzLine: whatever a line holds, its pieces are parts of it, valid text, and
// no more than its length allows.
func FuzzLine(f *testing.F) {
	for _, s := range []string{
		"(EngineCore pid=7) INFO 11-23 19:00:19 [a.py:1] one(Worker_TP1 pid=5) INFO 11-23 19:00:19 [b.py:2] two\r",
		"\x1b[1;36m(VllmWorker rank=3 pid=99)\x1b[0;0m ERROR 11-23 19:00:19 [core.py:1] ValueError: x",
		`{"log":"INFO 11-23 19:00:19 [a.py:1] msg\n","stream":"stdout"}`, `(E pid=1) {"message":"a\nb","levelname":"INFO"}`,
		"a-1  | DEBUG 11-23 19:00:19 a.py:1] x\r\rbar 1%\r", "INFO 99-99 99:99:99 a.py:1] x",
	} {
		f.Add([]byte(s))
	}
	for _, d := range disguises {
		f.Add([]byte(d.to("(Worker_TP1 pid=5) INFO 11-23 19:00:19 [a.py:1] one\nValueError: x\n")))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		n := 0
		splitLine(line, piece{proc: noProcess(), line: 1}, func([]byte) bool { return true }, func(p *piece) {
			n++
			if !utf8.ValidString(p.msg) {
				t.Errorf("message %q is not UTF-8", p.msg)
			}
			if len(p.raw) > maxPiece*4 || len(p.msg) > len(p.raw) {
				t.Errorf("message of %d bytes from %d", len(p.msg), len(p.raw))
			}
			if p.level != "" && p.stamp.IsZero() && p.source != "" && !bytes.Contains(line, []byte("{")) {
				t.Errorf("a record without a time: %+v", p)
			}
		})
		if n > len(line)+1 {
			t.Errorf("%d pieces of %d bytes", n, len(line))
		}
	})
}

// FuzzLogs: a log is read the same however it arrives, figures have sources,
// and rendering survives them.
func FuzzLogs(f *testing.F) {
	for _, pattern := range []string{"testdata/h100-v0.26/*/stdout.log", "testdata/h100-v0.26/fail*/stderr.log"} {
		files, _ := filepath.Glob(pattern)
		for _, name := range files {
			if b, err := os.ReadFile(name); err == nil {
				f.Add(b[:min(len(b), 12<<10)])
			}
		}
	}
	f.Add([]byte(v1Banner("0.28.0", 2) + kvLine + newUsage))
	f.Add([]byte(engineTrace("torch.OutOfMemoryError: " + torchOOM)))
	f.Add([]byte("args: Namespace(a='b', c=[1,2], d={'x': 'y'}, block_size=16)\n# GPU blocks: 9, # CPU blocks: 3\n"))
	for _, w := range wordings() {
		f.Add([]byte(engineOf(w.versions[0], w.kind, "seed=0") + rec(w.versions[0], "", w.file, w.msg)))
	}
	base := NewReader(ReaderOptions{})
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<16 || bytes.HasPrefix(text, []byte{0x1f, 0x8b}) || bytes.HasPrefix(text, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
			return
		}
		whole, err := readLogs(base.reader(ReaderOptions{}), NamedReader{Name: "x", R: bytes.NewReader(text)})
		if err != nil {
			t.Fatal(err)
		}
		again, err := readLogs(base.reader(ReaderOptions{}), NamedReader{Name: "x", R: halves{bytes.NewReader(text)}})
		if err != nil {
			t.Fatal(err)
		}
		a, err1 := json.Marshal(whole.Accounts)
		b, err2 := json.Marshal(again.Accounts)
		if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("read twice, got two accounts (%v, %v):\n%s\n%s", err1, err2, a, b)
		}
		for _, acc := range whole.Accounts {
			for _, c := range Columns(acc) {
				if _, ok := acc.Sources[c.Name]; c.Value != nil && !ok && acc.Missing[c.Name] == "" && !strings.Contains("num_ranks budget_closes error_kind error_message error_line unread_count", c.Name) {
					t.Errorf("%s = %v has no source", c.Name, c.Value)
				}
			}
		}
		var out bytes.Buffer
		for _, a := range whole.Accounts {
			if err := RenderText(&out, NamedAccount{Account: a}, true); err != nil {
				t.Fatal(err)
			}
		}
		if !utf8.Valid(out.Bytes()) {
			t.Error("the text is not UTF-8")
		}
	})
}

// halves gives odd amounts at a time.
type halves struct{ r *bytes.Reader }

func (h halves) Read(b []byte) (int, error) { return h.r.Read(b[:max(1, min(len(b), 7))]) }
