package log

import (
	"bytes"
	"encoding/json"
	"errors"
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
	group   string // the container or host that a wrapper names, "" without one
	stage   string // of an engine of several stages: "Stage-2", "" without one
	msg     string // what vLLM said
	raw     string // the whole line, cleaned of escapes
	lead    bool   // the text before a record of the same line
	kept    string // of raw, what at has cut out
}

// A process is the sender of a line as its prefix names it. Indices are -1
// where the name holds none.
type process struct {
	name        string // "Worker_TP0_EP0", "EngineCore", "VllmWorkerProcess"; "" without a prefix
	pid         int
	host        string // ray: the node's address
	rank        int
	dp, pp, tp  int
	ep          int
	hasParallel bool
}

// noProcess is the sender of a line without a prefix.
func noProcess() process { return process{rank: -1, dp: -1, pp: -1, tp: -1, ep: -1} }

// fraction ends a time of day: its fraction and its zone.
const fraction = `(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?`

var (
	ansiRE = regexp.MustCompile("\x1b(?:\\[[0-9;?]*[ -/]*[@-~]|[\\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[@-OQ-WYZ\\\\-_])")

	// headerRE is the prefix of a record: 0.4.0-0.7.3 without "[", 0.8.0 on with
	// it; a date format of the user's own may add a year, NVIDIA NIM leaves the
	// date away and prints fractions.
	headerRE = regexp.MustCompile(`^(DEBUG|INFO|WARNING|ERROR|CRITICAL)[ \t]+(?:(?:\d{4}-)?(\d{2})-(\d{2})[ T])?` +
		`(\d{1,2}):(\d{2}):(\d{2})` + fraction + `[ \t]+\[?([\w./<>\-]+):(\d+)\](?:[ \t]|$)`)

	// procRE is a process prefix, of vLLM or of Ray.
	procRE = regexp.MustCompile(`\((?:([A-Za-z_](?:[^()=]*?[^()=, ])?) )?(?:rank=(\d+) )?pid=(\d+)` +
		`(?:, ip=([\w.:\-]+))?\)`)
	procTailRE = regexp.MustCompile(procRE.String() + `\s*$`)
	parallelRE = regexp.MustCompile(`(DP|PP|PCP|DCP|TP|EP)_?(\d+)`)

	// The wrappers that name a container or a unit: docker compose and docker
	// service, kubectl --prefix, journald and syslog, stern (whose pod names end as
	// Kubernetes ends them).
	composeRE = regexp.MustCompile(`^([A-Za-z][\w.\-@]*)\s*\|(?: |$)`)
	podRE     = regexp.MustCompile(`^\[(?:pod/)?([\w.\-]+(?:/[\w.\-]+)?)\] `)
	journalRE = regexp.MustCompile(`^(?:[A-Z][a-z]{2} [ \d]\d|\d{4}-\d\d-\d\d)[ T]\d\d:\d\d:\d\d\S* ` +
		`([\w.\-]+ [\w.\-@/]+\[\d+\]): ?`)
	sternRE = regexp.MustCompile(`^([a-z0-9][a-z0-9.\-]*-(?:[bcdfghjklmnpqrstvwxz2456789]{5}|\d+) ` +
		`[a-z0-9\-]+) (?:› )?`)

	// hostRE is the label of pdsh, clush and their like.
	hostRE = regexp.MustCompile(`^([a-z][a-z0-9\-]*[0-9\-][a-z0-9\-]*(?:\.[a-z0-9.\-]+)?): `)

	// stageRE is the label that an engine of several stages puts before its
	// records, or a server that several nodes share.
	stageRE     = regexp.MustCompile(`^\s*\[((?:[Ss]tage|[Nn]ode|[Hh]ost|[Rr]eplica)[\-_ #]?[\w.\-]+)\] ?`)
	stageTailRE = regexp.MustCompile(`\[((?:[Ss]tage|[Nn]ode|[Hh]ost|[Rr]eplica)[\-_ #]?[\w.\-]+)\]\s*$`)

	// wrapperRE is what else stands before a line: times of docker, a container
	// runtime, ts, a CI; labels of srun, mpirun, torchrun; grep -n, cat -n; a mail.
	wrapperRE = regexp.MustCompile(`^(?:\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d` + fraction + `(?: std(?:out|err) [FP])? ?|` +
		`[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d |\d\d:\d\d:\d\d |\d{1,9}: ?|[ \t]*\d{1,9}\t|` +
		`\[ *\d+\.\d{6}\] |\[\d+,\d+\]<std(?:out|err)>: ?|\[(?:default)?\d+\]: ?|[>|│┃║] |_bk;t=\d+\x07|` +
		`\((?:\w+, )+pid=\d+\) |\(\w+, rank=\d+, pid=\d+\) |\x{feff})`)

	// otherHeaderRE is the prefix of a record by somebody else's formatter: a time
	// before the level, or behind it.
	otherHeaderRE = regexp.MustCompile(`^[^"']{0,60}?(?:\d{2}:\d{2}:\d{2}` + fraction +
		`[\s\]|\-]*\[?(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b[\]:|\s\-]*|\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)[ \t]+` +
		`\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(?:[.,]\d+)?[\s\-]*)`)
)

// levels are the words that a record begins with.
func levels() []string { return []string{"INFO", "DEBUG", "WARNING", "ERROR", "CRITICAL"} }

const (
	maxPiece  = 1 << 20   // what of one line is looked at: bars may fill it
	maxRecord = 128 << 10 // what of one record: no record of vLLM is longer
	maxError  = 8 << 10   // what of an error's text tells its kind
	maxFigure = 2 << 10   // what of a line may look like a memory figure
)

// splitLine yields the pieces of one line. base carries stream, file, line
// number and arrival time.
// Parts that are not wanted are left out before they cost more than a look.
func splitLine(text []byte, base piece, wanted func([]byte) bool, yield func(*piece)) {
	if len(text) > maxPiece {
		text = text[:maxPiece]
	}
	var out piece
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
		if len(part) > maxRecord {
			part = part[:maxRecord]
		}
		if len(bytes.TrimSpace(part)) > 0 && wanted(part) {
			splitPart(strings.ToValidUTF8(string(part), "�"), &base, &out, yield, 0)
		}
	}
}

// splitPart fills out for each piece in turn: whoever wants to keep one copies
// it.
func splitPart(s string, from, out *piece, yield func(*piece), depth int) {
	if depth < 3 && splitJSON(s, *from, out, yield, depth) {
		return
	}
	base := *from
	if strings.IndexByte(s, 0x1b) >= 0 {
		s = ansiRE.ReplaceAllString(s, "") // a JSON text hid it from splitLine
	}
	base.raw = s
	s = withoutBorder(s)
	group, rest := unwrap(s)
	if base.group == "" {
		base.group = group
	}
	heads := findHeaders(s)
	if len(heads) == 0 {
		*out = base
		out.plain(rest)
		yield(out)
		return
	}
	prev := base
	prevFrom := 0
	for n, h := range heads {
		p := base
		sender, stage, start := senderBefore(s[prevFrom:h[0]], prevFrom, h[0])
		if stage != "" {
			p.stage = stage
		}
		if sender.pid != 0 {
			p.proc = sender
		}
		if n > 0 || strings.TrimSpace(s[prevFrom:start]) != "" {
			prev.msg = strings.TrimRight(s[prevFrom:start], " ")
			if prev.msg != "" {
				*out = prev
				out.lead = n == 0
				yield(out)
			}
		}
		p.fillHeader(s, h)
		prev, prevFrom = p, h[1]
	}
	prev.msg = s[prevFrom:]
	*out = prev
	yield(out)
}

// withoutBorder takes off the right side of a box, with what fills the line up
// to it.
func withoutBorder(s string) string {
	for _, side := range []string{"│", "┃", "║"} {
		if t := strings.TrimRight(s, " "); strings.HasSuffix(t, side) {
			return strings.TrimRight(strings.TrimSuffix(t, side), " ")
		}
	}
	return s
}

// plain fills a piece that is no record of vLLM: a bar, a line of a traceback,
// another program's record. Of several processes before it the innermost is
// vLLM's own.
func (p *piece) plain(s string) {
	for range 4 {
		h := head(s, 300)
		if strings.HasPrefix(strings.TrimLeft(h, " "), "[") {
			if m := stageRE.FindStringSubmatchIndex(h); m != nil {
				p.stage, s = h[m[2]:m[3]], s[m[1]:]
				continue
			}
		}
		if !strings.HasPrefix(strings.TrimLeft(h, " "), "(") {
			break
		}
		i := procRE.FindStringSubmatchIndex(h)
		if i == nil || strings.TrimSpace(h[:i[0]]) != "" {
			break
		}
		if sender := processOf(s, i); sender.name != "" || p.proc.name == "" {
			p.proc = sender
		}
		s = strings.TrimPrefix(s[i[1]:], " ")
	}
	p.msg = s
	if p.level != "" || !containsAny(head(s, 120), levels()...) {
		return
	}
	if m := otherHeaderRE.FindStringSubmatchIndex(head(s, 120)); m != nil {
		if m[2] < 0 {
			m[2], m[3] = m[4], m[5]
		}
		p.level, p.msg = s[m[2]:m[3]], s[m[1]:]
	}
}

// unwrap takes off what collectors and shells put before a line, and says which
// container it names, "" without one.
func unwrap(s string) (group, rest string) {
	for range 4 {
		n := 0
		h := head(s, 200)
		if m := groupIn(h); m != nil {
			if group == "" {
				group = h[m[2]:m[3]]
			}
			n = m[1]
		} else if mayWrap(h) {
			if m := wrapperRE.FindStringIndex(head(h, 80)); m != nil {
				n = m[1]
			}
		}
		if n == 0 {
			break
		}
		s = s[n:]
	}
	return group, s
}

// mayWrap spares most lines the regular expression.
func mayWrap(h string) bool {
	if h == "" {
		return false
	}
	switch c := h[0]; {
	case c >= 'A' && c <= 'Z':
		return len(h) > 6 && h[3] == ' ' && h[6] == ' '
	case c >= 'a' && c <= 'z':
		return false
	}
	return true
}

// groupIn finds the wrapper that names a container or a unit at the beginning
// of h: the indices of the whole and of the name.
func groupIn(h string) []int {
	if h == "" {
		return nil
	}
	if h[0] == '[' {
		if m := podRE.FindStringSubmatchIndex(h); m != nil && strings.Contains(h[m[2]:m[3]], "/") {
			return m
		}
		return nil
	}
	if mayWrap(h) {
		return journalRE.FindStringSubmatchIndex(h)
	}
	if strings.IndexByte(head(h, 100), '|') >= 0 {
		if m := composeRE.FindStringSubmatchIndex(h); m != nil {
			return m
		}
	}
	first, _, _ := strings.Cut(head(h, 100), " ")
	if strings.HasSuffix(first, ":") {
		return hostRE.FindStringSubmatchIndex(h)
	}
	if strings.IndexByte(first, '-') >= 0 && !strings.HasPrefix(h[len(first):], " exited with") {
		return sternRE.FindStringSubmatchIndex(h)
	}
	return nil
}

// findHeaders finds the record prefixes of a line, of which there may be
// several. Searching for the level's word first spares nearly all text the
// regular expression.
func findHeaders(s string) [][]int {
	var at []int
	for _, level := range levels() {
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
// and says where they begin, and the label of a stage among them. The innermost
// process is vLLM's own.
func senderBefore(before string, offset, start int) (found process, stage string, from int) {
	found = noProcess()
	for {
		var i []int
		trimmed := strings.TrimRight(before, " ")
		if strings.HasSuffix(trimmed, "]") {
			if m := stageTailRE.FindStringSubmatchIndex(before); m != nil && stage == "" {
				stage, start, before = before[m[2]:m[3]], offset+m[0], before[:m[0]]
				continue
			}
		}
		if strings.HasSuffix(trimmed, ")") {
			i = procTailRE.FindStringSubmatchIndex(before)
		}
		if i == nil {
			return found, stage, start
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
	p := process{name: sub(1), host: sub(4), rank: -1, dp: -1, pp: -1, tp: -1, ep: -1}
	p.pid, _ = strconv.Atoi(sub(3))
	if r := sub(2); r != "" {
		p.rank, _ = strconv.Atoi(r)
	}
	if !isWorker(p.name) && !isEngine(p.name) {
		return p
	}
	if m := engineNRE.FindStringSubmatch(p.name); m != nil {
		p.dp = atoi(m[1])
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
		case "EP":
			p.ep, p.hasParallel = n, true
		}
	}
	return p
}

// isWorker reports whether a process of that name holds a rank of the model.
func isWorker(name string) bool { return hasAnyPrefix(name, "Worker", "VllmWorker", "RayWorker") }

// isEngine reports whether a process of that name runs the engine loop.
func isEngine(name string) bool { return strings.Contains(name, "Engine") }

// isFront reports whether a process of that name only serves requests.
func isFront(name string) bool {
	return hasAnyPrefix(name, "APIServer", "ApiServer", "DPSupervisor", "AsyncTokenizer")
}

// jsonLine holds the names that structured loggers and collectors give to the
// same things: docker's json-file, python-json-logger, NVIDIA NIM, Anyscale,
// Fluent Bit, Loki, Cloud Logging, CloudWatch, journald, OpenTelemetry.
type jsonLine struct {
	Message     json.RawMessage `json:"message"`
	Msg         json.RawMessage `json:"msg"`
	Log         json.RawMessage `json:"log"`
	Event       json.RawMessage `json:"event"`
	Line        json.RawMessage `json:"line"`
	Text        json.RawMessage `json:"textPayload"`
	Payload     json.RawMessage `json:"jsonPayload"`
	At          json.RawMessage `json:"@message"`
	Body        json.RawMessage `json:"body"`
	ExcInfo     *string         `json:"exc_info"`
	Exception   *string         `json:"exception"`
	Level       *string         `json:"level"`
	LevelName   *string         `json:"levelname"`
	Filename    *string         `json:"filename"`
	FilePath    *string         `json:"file_path"`
	Pathname    *string         `json:"pathname"`
	PID         json.RawMessage `json:"process"`
	ProcessName *string         `json:"processName"`

	Container  *string `json:"container_name"`
	Kubernetes jsonPod `json:"kubernetes"`
	Labels     jsonPod `json:"labels"`
	Fields     jsonPod `json:"fields"`
	Resource   struct {
		Labels jsonPod `json:"labels"`
	} `json:"resource"`
	LogStream *string `json:"logStreamName"`
	Unit      *string `json:"_SYSTEMD_UNIT"`
}

type jsonPod struct {
	PodName       *string `json:"pod_name"`
	Pod           *string `json:"pod"`
	ContainerName *string `json:"container_name"`
	Container     *string `json:"container"`
}

// group is the container that a collector names beside the line.
func (j *jsonLine) group() string {
	for _, p := range []jsonPod{j.Kubernetes, j.Resource.Labels, j.Labels, j.Fields} {
		if pod := firstOf(p.PodName, p.Pod); pod != "" {
			return pod + "/" + firstOf(p.ContainerName, p.Container)
		}
	}
	return firstOf(j.Container, j.LogStream, j.Unit)
}

// splitJSON unwraps a line that is a JSON object, behind whatever prefix, and
// reports whether it was one.
func splitJSON(s string, base piece, out *piece, yield func(*piece), depth int) bool {
	i := strings.IndexByte(head(s, 400), '{')
	if i < 0 || i+1 >= len(s) || (s[i+1] != '"' && s[i+1] != ' ') {
		return false
	}
	t := strings.TrimRight(s[i:], " \t")
	if t[len(t)-1] != '}' {
		return false
	}
	j, ok := parseJSON(t)
	if !ok {
		return false
	}
	text := j.text()
	if text == "" {
		return false
	}
	if base.group == "" {
		if base.group, _ = unwrap(s[:i]); base.group == "" {
			base.group = j.group()
		}
	}
	j.sender(&base)
	if m := procRE.FindStringSubmatchIndex(s[:i]); m != nil {
		base.proc = processOf(s, m)
	}
	base.level = strings.ToUpper(firstOf(j.LevelName, j.Level))
	base.source = firstOf(j.FilePath, j.Filename, j.Pathname)
	for sub := range strings.SplitSeq(text, "\n") {
		for part := range strings.SplitSeq(sub, "\r") { // bars, and the CR before each line of vLLM's own
			if strings.TrimSpace(part) != "" {
				splitPart(part, &base, out, yield, depth+1)
			}
		}
	}
	return true
}

// parseJSON reads an object; a field of another type than expected is somebody
// else's.
func parseJSON(t string) (j jsonLine, ok bool) {
	var other *json.UnmarshalTypeError
	err := json.Unmarshal([]byte(t), &j)
	return j, err == nil || errors.As(err, &other)
}

// sender is the process that a JSON formatter names.
func (j *jsonLine) sender(base *piece) {
	pid, err := strconv.Atoi(strings.Trim(string(j.PID), `"`))
	if err != nil || pid <= 0 {
		return
	}
	base.proc = noProcess()
	base.proc.pid = pid
	if j.ProcessName == nil {
		return
	}
	base.proc.name = *j.ProcessName
	if m := workerNRE.FindStringSubmatch(base.proc.name); m != nil {
		base.proc.rank = atoi(m[1])
	}
}

var (
	// workerNRE is how V1 calls the process of a rank.
	workerNRE = regexp.MustCompile(`^VllmWorker-(\d{1,5})$`)
	// engineNRE is how V1 0.8.3 to 0.10.1 calls the engine of a data-parallel rank.
	engineNRE = regexp.MustCompile(`^EngineCore_(\d{1,5})$`)
)

// text is what the logger was asked to write, with the traceback behind it.
func (j *jsonLine) text() string {
	text := ""
	for _, raw := range []json.RawMessage{j.Message, j.Msg, j.Log, j.Line, j.Text, j.At, j.Event, j.Body, j.Payload} {
		if text = jsonText(raw, 0); text != "" {
			break
		}
	}
	if e := firstOf(j.ExcInfo, j.Exception); e != "" {
		text += "\n" + e
	}
	return text
}

// jsonText is a text, or the message of an object that stands for one.
func jsonText(raw json.RawMessage, depth int) string {
	if len(raw) < 3 || depth > 1 {
		return ""
	}
	switch raw[0] {
	case '"':
		var s string
		_ = json.Unmarshal(raw, &s) // it is valid JSON: a part of what was parsed
		return s
	case '{':
		var o struct {
			Message, Msg, StringValue, Original json.RawMessage
		}
		_ = json.Unmarshal(raw, &o)
		for _, r := range []json.RawMessage{o.Message, o.Msg, o.StringValue, o.Original} {
			if s := jsonText(r, depth+1); s != "" {
				return s
			}
		}
	}
	return ""
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
