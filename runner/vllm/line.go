package vllm

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A piece is one record of the log, or one line that is no record, with its
// prefixes taken off. A tqdm bar and the record behind it on the same line are
// two pieces.
type piece struct {
	stream  string
	file    string
	line    int
	arrived time.Time
	stamp   time.Time // year 0; zero if the record has none
	level   string    // "" where the line is no record
	source  string    // "gpu_worker.py", "v1/worker/gpu_worker.py"
	proc    process
	group   string // the container that a wrapper names, "" without one
	msg     string // what vLLM said
	raw     string // the whole line, cleaned of escapes
}

// A process is the sender of a line as its prefix names it. Indices are -1
// where the name holds none.
type process struct {
	name        string // "Worker_TP0_EP0", "EngineCore", "VllmWorkerProcess"; "" without a prefix
	pid         int
	host        string // ray: the node's address
	rank        int
	dp, pp, tp  int
	hasParallel bool
}

// noProcess is the sender of a line without a prefix.
func noProcess() process { return process{rank: -1, dp: -1, pp: -1, tp: -1} }

var (
	ansiRE = regexp.MustCompile("\x1b(?:\\[[0-9;?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[@-Z\\\\-_])")

	// headerRE is the prefix of a record: 0.4.0-0.7.3 without "[", 0.8.0 on with
	// it; a date format of the user's own may add a year, NVIDIA NIM leaves the
	// date away and prints fractions.
	headerRE = regexp.MustCompile(`^(DEBUG|INFO|WARNING|ERROR|CRITICAL)[ \t]+(?:(?:\d{4}-)?(\d{2})-(\d{2})[ T])?(\d{1,2}):(\d{2}):(\d{2})(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?[ \t]+\[?([\w./<>\-]+):(\d+)\](?:[ \t]|$)`)

	// procRE is a process prefix, of vLLM or of Ray.
	procRE     = regexp.MustCompile(`\((?:([A-Za-z_][^()=]*?) )?(?:rank=(\d+) )?pid=(\d+)(?:, ip=([\w.:\-]+))?\)`)
	procTailRE = regexp.MustCompile(procRE.String() + `\s*$`)
	parallelRE = regexp.MustCompile(`(DP|PP|PCP|DCP|TP|EP)_?(\d+)`)
	composeRE  = regexp.MustCompile(`^([A-Za-z][\w.\-]*)\s*\| `)
	podRE      = regexp.MustCompile(`^\[(?:pod/)?([\w.\-]+(?:/[\w.\-]+)?)\] `)
)

// maxPiece bounds what of one line is looked at: no record of vLLM is longer.
const maxPiece = 1 << 20

// splitLine yields the pieces of one line. base carries stream, file, line
// number and arrival time.
// Parts that are not wanted are left out before they cost more than a look.
func splitLine(text []byte, base piece, wanted func([]byte) bool, yield func(*piece)) {
	if len(text) > maxPiece {
		text = text[:maxPiece]
	}
	if bytes.IndexByte(text, 0x1b) >= 0 {
		text = ansiRE.ReplaceAll(text, nil)
	}
	for len(text) > 0 {
		part := text
		if i := bytes.IndexByte(text, '\r'); i >= 0 {
			part, text = text[:i], text[i+1:]
		} else {
			text = nil
		}
		if len(bytes.TrimSpace(part)) > 0 && wanted(part) {
			splitPart(strings.ToValidUTF8(string(part), "�"), base, yield, 0)
		}
	}
}

func splitPart(s string, base piece, yield func(*piece), depth int) {
	if depth < 3 && splitJSON(s, base, yield, depth) {
		return
	}
	base.raw = s
	if base.group == "" {
		base.group = wrapperOf(s)
	}
	heads := findHeaders(s)
	if len(heads) == 0 {
		base.msg = s
		if h := head(s, 300); !strings.Contains(h, "pid=") {
			yield(&base)
			return
		} else if i := procRE.FindStringSubmatchIndex(h); i != nil {
			base.proc = processOf(s, i)
			base.msg = strings.TrimPrefix(s[i[1]:], " ")
		}
		yield(&base)
		return
	}
	prev := base
	prevFrom := 0
	for n, h := range heads {
		p := base
		sender, start := senderBefore(s[prevFrom:h[0]], prevFrom, h[0])
		if sender.pid != 0 {
			p.proc = sender
		}
		if n > 0 || strings.TrimSpace(s[prevFrom:start]) != "" {
			prev.msg = strings.TrimRight(s[prevFrom:start], " ")
			if prev.msg != "" {
				q := prev
				yield(&q)
			}
		}
		p.fillHeader(s, h)
		prev, prevFrom = p, h[1]
	}
	prev.msg = s[prevFrom:]
	yield(&prev)
}

// findHeaders finds the record prefixes of a line, of which there may be
// several. Searching for the level's word first spares nearly all text the
// regular expression.
func findHeaders(s string) [][]int {
	var at []int
	for _, level := range []string{"INFO", "DEBUG", "WARNING", "ERROR", "CRITICAL"} {
		for from := 0; len(at) < 64; {
			i := strings.Index(s[from:], level)
			if i < 0 {
				break
			}
			at = append(at, from+i)
			from += i + len(level)
		}
	}
	slices.Sort(at)
	var out [][]int
	end := 0
	for _, i := range at {
		if i < end || len(out) == 16 {
			continue
		}
		h := headerRE.FindStringSubmatchIndex(head(s[i:], 400))
		if h == nil {
			continue
		}
		for k := range h {
			if h[k] >= 0 {
				h[k] += i
			}
		}
		out = append(out, h)
		end = h[1]
	}
	return out
}

// senderBefore reads the process prefixes that stand directly before a record
// and says where they begin. The innermost one is vLLM's own.
func senderBefore(before string, offset, start int) (process, int) {
	found := noProcess()
	for {
		var i []int
		if strings.HasSuffix(strings.TrimRight(before, " "), ")") {
			i = procTailRE.FindStringSubmatchIndex(before)
		}
		if i == nil {
			return found, start
		}
		if p := processOf(before, i); found.pid == 0 || (found.name == "" && p.name != "") {
			found = p
		}
		start = offset + i[0]
		before = before[:i[0]]
	}
}

func (p *piece) fillHeader(s string, h []int) {
	p.level = s[h[2]:h[3]]
	p.source = s[h[14]:h[15]]
	num := func(k int) int {
		if h[2*k] < 0 {
			return 0
		}
		n, _ := strconv.Atoi(s[h[2*k]:h[2*k+1]])
		return n
	}
	month, day := num(2), num(3)
	if month < 1 || month > 12 || day < 1 || day > 31 {
		month, day = 1, 1
	}
	p.stamp = time.Date(0, time.Month(month), day, num(4), num(5), num(6), 0, time.UTC)
}

func processOf(s string, i []int) process {
	sub := func(k int) string {
		if i[2*k] < 0 {
			return ""
		}
		return s[i[2*k]:i[2*k+1]]
	}
	p := process{name: sub(1), host: sub(4), rank: -1, dp: -1, pp: -1, tp: -1}
	p.pid, _ = strconv.Atoi(sub(3))
	if r := sub(2); r != "" {
		p.rank, _ = strconv.Atoi(r)
	}
	if !isWorker(p.name) && !isEngine(p.name) {
		return p
	}
	for _, m := range parallelRE.FindAllStringSubmatch(p.name, 8) {
		n, err := strconv.Atoi(m[2])
		if err != nil || n > 1<<16 {
			continue
		}
		switch m[1] {
		case "DP":
			p.dp = n
		case "PP":
			p.pp, p.hasParallel = n, true
		case "TP":
			p.tp, p.hasParallel = n, true
		}
	}
	return p
}

// isWorker reports whether a process of that name holds a rank of the model.
func isWorker(name string) bool {
	return strings.HasPrefix(name, "Worker") || strings.HasPrefix(name, "VllmWorker") ||
		strings.HasPrefix(name, "RayWorker") || strings.HasPrefix(name, "WorkerProc")
}

// isEngine reports whether a process of that name runs the engine loop.
func isEngine(name string) bool {
	return strings.HasPrefix(name, "EngineCore") || strings.Contains(name, "Engine")
}

// isFront reports whether a process of that name only serves requests.
func isFront(name string) bool {
	return strings.HasPrefix(name, "APIServer") || strings.HasPrefix(name, "ApiServer") ||
		strings.HasPrefix(name, "DPSupervisor") || strings.HasPrefix(name, "AsyncTokenizer")
}

func wrapperOf(s string) string {
	if s == "" || (s[0] != '[' && !strings.Contains(head(s, 80), "| ")) {
		return ""
	}
	if m := composeRE.FindStringSubmatch(head(s, 120)); m != nil {
		return m[1]
	}
	if m := podRE.FindStringSubmatch(head(s, 160)); m != nil && strings.Contains(m[1], "/") {
		return m[1]
	}
	return ""
}

// jsonLine holds the names that structured loggers give to the same things:
// docker's json-file, python-json-logger, NVIDIA NIM, Anyscale.
type jsonLine struct {
	Message   *string         `json:"message"`
	Msg       *string         `json:"msg"`
	Log       *string         `json:"log"`
	Event     json.RawMessage `json:"event"`
	ExcInfo   *string         `json:"exc_info"`
	Level     *string         `json:"level"`
	LevelName *string         `json:"levelname"`
	Filename  *string         `json:"filename"`
	FilePath  *string         `json:"file_path"`
	Pathname  *string         `json:"pathname"`
	Stream    *string         `json:"stream"`
	Process   json.RawMessage `json:"process"`
}

// splitJSON unwraps a line that is a JSON object, behind whatever prefix, and
// reports whether it was one.
func splitJSON(s string, base piece, yield func(*piece), depth int) bool {
	i := strings.IndexByte(head(s, 400), '{')
	if i < 0 || i+1 >= len(s) || (s[i+1] != '"' && s[i+1] != ' ') {
		return false
	}
	t := strings.TrimRight(s[i:], " \t")
	if t[len(t)-1] != '}' {
		return false
	}
	var j jsonLine
	if json.Unmarshal([]byte(t), &j) != nil {
		return false
	}
	text := j.text()
	if text == "" {
		return false
	}
	if m := procRE.FindStringSubmatchIndex(s[:i]); m != nil {
		base.proc = processOf(s, m)
	}
	base.level = strings.ToUpper(firstOf(j.LevelName, j.Level))
	base.source = firstOf(j.FilePath, j.Filename, j.Pathname)
	for sub := range strings.SplitSeq(text, "\n") {
		if sub = strings.TrimRight(sub, "\r"); strings.TrimSpace(sub) != "" {
			splitPart(sub, base, yield, depth+1)
		}
	}
	return true
}

// text is what the logger was asked to write, with the traceback behind it.
func (j *jsonLine) text() string {
	text := firstOf(j.Message, j.Msg, j.Log)
	if text == "" && len(j.Event) > 1 && j.Event[0] == '"' {
		_ = json.Unmarshal(j.Event, &text) // it is valid JSON: a part of what was parsed
	}
	if j.ExcInfo != nil {
		text += "\n" + *j.ExcInfo
	}
	return text
}

func firstOf(values ...*string) string {
	for _, v := range values {
		if v != nil && *v != "" {
			return *v
		}
	}
	return ""
}

// head is at most n bytes of s, cut without regard to runes.
func head(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
