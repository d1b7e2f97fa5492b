package log

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// ReaderOptions set up a Reader. The zero value reads a recorded log.
type ReaderOptions struct {
	// Event is called for each moment of the run as its line is read. nil: the
	// moments are only kept for Events.
	Event func(runner.LogEvent)
	// Mask takes secrets out of the texts that are kept. nil: they are kept as
	// they stand.
	Mask func(string) string
	// NoEvents keeps no moments.
	NoEvents bool
	// Apart gives each data-parallel engine an account of its own. Without it the
	// ranks of a run that a runner started are ranks of one account.
	Apart bool
}

// A Reader reads vLLM's log line by line and keeps the facts, not the lines:
// its size does not grow with the log. It is not safe for concurrent use.
//
// A log may hold several engines, one after another or at once: each has its own
// Account. The ranks of tensor and pipeline parallelism are ranks of one engine.
type Reader struct {
	*tables
	opts    ReaderOptions
	groups  map[string]*groupState
	labels  map[string]string // by stream: the last group that a wrapper named
	order   []*run
	current *run // of the group of the line at hand
	state   *groupState
	lines   map[string]int
	events  []runner.LogEvent

	frames   map[string]mark // by sender, of the traceback that is being printed
	tail     tail
	other    string            // the engine, not vLLM, that speaks
	repeated int               // statistics since the last line of another kind
	traces   map[string]*trace // by sender, while its traceback is being printed
	chains   map[string]bool   // the senders whose next exception goes back to another, which may be cut off
	wrap     wrapped
	more     int64 // engines beyond maxRuns, which are not told
}

// A groupState is what lines of one container (or of a log without such
// prefixes) share.
type groupState struct {
	name string
	runs []*run
	pids map[string]*run // who a process works for; a process that starts anew is forgotten
}

const (
	maxRuns    = 256
	maxSenders = 4096
	maxEvents  = 100_000
	maxText    = 500
)

// NewReader returns a Reader for one run's log.
func NewReader(opts ReaderOptions) *Reader { return newTables().reader(opts) }

func (t *tables) reader(opts ReaderOptions) *Reader {
	r := &Reader{
		tables: t, opts: opts, groups: make(map[string]*groupState), lines: make(map[string]int),
		labels: make(map[string]string), frames: make(map[string]mark),
		traces: make(map[string]*trace), chains: make(map[string]bool),
	}
	r.state = r.group("")
	r.current = r.state.runs[0]
	return r
}

func (r *Reader) group(name string) *groupState {
	g := r.groups[name]
	if g == nil {
		g = &groupState{name: name, pids: make(map[string]*run)}
		n := r.newRun()
		n.group = name
		if g.add(n); len(r.groups) < 2*maxRuns {
			r.groups[name] = g
		}
	}
	return g
}

// newRun is a run that is told, or one that is read and not told: there are too
// many in the log.
func (r *Reader) newRun() *run {
	n := &run{reader: r, senders: make(map[string]*sender), dropped: len(r.order) >= maxRuns, dp: -1}
	n.root = n
	if !n.dropped {
		r.order = append(r.order, n)
	}
	return n
}

// Line reads one line of a stream ("stdout", "stderr", or a file's name),
// without its end. A line that ends in CR, as tqdm's bars do, may come as a
// line of its own through Part. arrived is zero for a log recorded by others.
func (r *Reader) Line(stream string, text []byte, arrived time.Time) {
	r.lines[stream]++
	r.read(stream, text, r.lines[stream], arrived)
}

// Part reads a piece of the line that Line will end: a bar that ends in CR, or
// a part of a very long line.
func (r *Reader) Part(stream string, text []byte, arrived time.Time) {
	r.read(stream, text, r.lines[stream]+1, arrived)
}

func (r *Reader) read(stream string, text []byte, line int, arrived time.Time) {
	if len(text) > maxPiece {
		text = text[:maxPiece]
	}
	hits := r.m.find(text)
	if !hits.any() && len(r.traces) == 0 && r.wrap.left == 0 || r.onlyStatistics(&hits) {
		return
	}
	base := piece{stream: stream, file: stream, line: line, arrived: arrived, proc: noProcess()}
	if r.opts.Mask != nil {
		text = []byte(r.opts.Mask(string(text)))
	}
	splitLine(text, base, r.wanted, r.piece)
}

// onlyStatistics reports whether a line is one more of those that a server prints
// every ten seconds: the first of them say all.
func (r *Reader) onlyStatistics(hits *hitSet) bool {
	var statistics hitSet
	statistics.add(r.statistics)
	if *hits != statistics {
		if hits.any() {
			r.repeated = 0
		}
		return false
	}
	r.repeated++
	return r.repeated > maxRepeated
}

const maxRepeated = 32

// wanted reports whether a part of a line may matter.
func (r *Reader) wanted(part []byte) bool {
	if len(r.traces) > 0 || r.wrap.left > 0 {
		return true
	}
	hits := r.m.find(part)
	return hits.any()
}

// piece reads one record or one line that is no record.
func (r *Reader) piece(p *piece) {
	if r.wrap.left > 0 {
		r.rejoin(p)
	}
	r.enter(p)
	r.current.noteFirst(p)
	r.noteFrame(p)
	r.noteOther(p)
	if r.trace(p) || noise(p) {
		return
	}
	hits := r.m.find([]byte(p.msg))
	if !hits.any() {
		return
	}
	r.current.notePlatform(p)
	r.current.noteModule(p)
	if hits.between(0, r.errors) && incomplete(p.msg) && r.hold(p, missedMemory) {
		return
	}
	read, miss := r.applyRules(p, &hits)
	if hits.between(r.errors, r.figures) {
		read = r.failureLine(p) || read
	}
	if read {
		return
	}
	if miss != missedNone && r.hold(p, miss) {
		return
	}
	if hits.between(r.figures, r.figures+8) && r.countsUnread(p) && !r.hold(p, missedNone) {
		r.unread(p)
	}
}

// enter finds the run that a piece belongs to. A line without the label that
// the lines around it have is of the last of them: wrapped, or the wrapper's own.
func (r *Reader) enter(p *piece) {
	if p.group != "" {
		if len(r.labels) < maxTraces {
			r.labels[p.stream] = p.group
		}
	} else if last := r.labels[p.stream]; last != "" && r.groups[""].pids[senderKey(p)] == nil {
		p.group = last
	}
	r.state = r.group(p.group)
	r.current = r.runOf(p)
}

// runOf is the engine of a group that a piece is of. A process, stage or
// data-parallel rank that does not go with the last engine opens another.
func (r *Reader) runOf(p *piece) *run {
	root := r.state.runs[len(r.state.runs)-1].root
	if owner := r.state.pids[senderKey(p)]; owner != nil && p.proc.pid != 0 {
		return owner // of engines that run side by side
	}
	role, dp := roleOf(p), -1
	if r.opts.Apart {
		dp = p.proc.dp
	}
	if role == "" && p.stage == "" {
		return root
	}
	var found *run
	for _, n := range r.state.runs {
		if n.root == root && n.fits(p.stage, dp) {
			found = n
		}
	}
	switch key := senderKey(p); {
	case found == nil: // another stage or rank of the same server
		found = r.newRun()
		found.root, found.group = root, root.group
		r.state.add(found)
	case role != "" && found.members[role] != "" && found.members[role] != key:
		if role == front && root.members[front] == "" {
			break
		}
		found = r.newRun()
		found.group = r.state.name
		r.state.add(found)
	}
	if found.dropped {
		r.more++
	}
	found.claim(p, role, dp)
	return found
}

const front = "front"

// roleOf names a process of which an engine has one, "" for any other.
func roleOf(p *piece) string {
	name := p.proc.name
	switch {
	case p.proc.pid == 0:
	case name == "APIServer", name == "ApiServer", name == "DPSupervisor":
		return front
	case isEngine(name) && !isFront(name) && strings.HasPrefix(name, "EngineCore"),
		isWorker(name) && (p.proc.hasParallel || p.proc.dp >= 0):
		return name
	case isWorker(name) && p.proc.rank >= 0:
		return name + " " + strconv.Itoa(p.proc.rank)
	}
	return ""
}

// fits reports whether a run is the one of a stage and a data-parallel rank, or
// may become it.
func (r *run) fits(stage string, dp int) bool {
	return (r.stage == stage || r.stage == "" && !r.engineSpoke()) &&
		(r.dp == dp || r.dp < 0 && (!r.engineSpoke() || dp == 0) || dp < 0)
}

// noteFirst notes where a run begins.
func (r *run) noteFirst(p *piece) {
	if r.first.Line == 0 {
		r.first = runner.AccountSource{File: p.file, Line: p.line}
	}
}

// engineSpoke reports whether more than the front end of a run was heard.
func (r *run) engineSpoke() bool {
	n := len(r.members)
	if r.members[front] != "" {
		n--
	}
	return n > 0 || len(r.names) > 0 || len(r.banners) > 0 || r.stage != ""
}

// claim notes that a process speaks for a run.
func (r *run) claim(p *piece, role string, dp int) {
	if p.stage != "" {
		r.stage = strings.Clone(p.stage)
	}
	if dp >= 0 {
		r.dp = dp
	}
	if role == "" {
		return
	}
	if r.members == nil {
		r.members = make(map[string]string)
	}
	if len(r.members) < maxSenders {
		r.members[strings.Clone(role)] = senderKey(p)
	}
	r.reader.state.own(r, p)
}

// A missed rule had its anchor but not its text: the line goes on, or is another.
type missed int

const (
	missedNone missed = iota
	missedField
	missedMemory // what is not read of it is counted
)

func begun(rl *rule) missed {
	switch {
	case rl.memory:
		return missedMemory
	case len(rl.fields) > 0:
		return missedField
	}
	return missedNone
}

// applyRules runs the rules whose anchors the piece holds.
func (r *Reader) applyRules(p *piece, hits *hitSet) (read bool, miss missed) {
	done := -1
	for i := range r.anchors {
		if !hits.has(uint(i)) {
			continue
		}
		for _, n := range r.anchors[i] {
			if n == done {
				continue
			}
			rl := &r.rules[n]
			m := rl.re.FindStringSubmatch(p.msg)
			if m == nil {
				miss = max(miss, begun(rl))
				continue
			}
			done = n
			rl.do(r.current, p, m)
			if len(rl.fields) > 0 {
				r.current.known++
			}
			read = true
		}
	}
	return read, miss
}

// noise reports whether a line is somebody else's text: a request's prompt, or
// source code that a traceback or a notebook shows.
func noise(p *piece) bool {
	return hasAnyPrefix(p.msg, "Received request", "Prompt: ", "Request ", "Generated text:")
}

// A wrapped is a record whose text may go on in the next lines, as a terminal
// or a notebook broke it: in the middle of a word, or between two.
type wrapped struct {
	p      piece
	joined [2]string // the text so far, joined without and with a blank
	left   int
	missed missed
}

// incomplete reports whether a line that vLLM ends with a full stop ends before
// it said what it has to say.
func incomplete(msg string) bool {
	return strings.Contains(msg, "Desired GPU memory utilization is") && !strings.Contains(msg, "is less than") &&
		(!strings.Contains(msg, "Actual usage") || !strings.HasSuffix(strings.TrimRight(msg, " \r"), "."))
}

// hold keeps a piece that has the beginning of a known line but not its end.
func (r *Reader) hold(p *piece, miss missed) bool {
	if p.level == "" && p.proc.pid == 0 || len(p.msg) > 1500 || !p.arrived.IsZero() {
		return false
	}
	r.wrap = wrapped{p: *p, joined: [2]string{p.msg, p.msg}, left: maxWrapped, missed: miss}
	return true
}

const maxWrapped = 8 // lines that one may be broken into

// rejoin tries whether the next line is the rest of the one that was held.
func (r *Reader) rejoin(p *piece) {
	w := r.wrap
	r.wrap = wrapped{}
	if p.level != "" || p.stream != w.p.stream || p.proc.pid != 0 && p.proc.pid != w.p.proc.pid {
		r.settle(&w)
		return
	}
	rest := strings.TrimSpace(p.msg)
	done := false
	for i, glue := range []string{"", " "} {
		w.joined[i] += glue + rest
		done = done || incomplete(w.p.msg) && !incomplete(w.joined[i])
	}
	w.left--
	if done || !incomplete(w.p.msg) && r.applyJoined(&w) {
		if done {
			r.applyJoined(&w)
		}
		return
	}
	if w.left > 0 {
		r.wrap = w
	} else {
		r.settle(&w)
	}
}

// applyJoined reads a line that was held, in the way of joining that yields most.
func (r *Reader) applyJoined(w *wrapped) bool {
	best, most := 0, -1
	for i := range w.joined {
		if n := len(usageRE.FindAllString(w.joined[i], -1)) + len(usageKVRE.FindAllString(w.joined[i], -1)); n > most {
			best, most = i, n
		}
	}
	for _, i := range []int{best, 1 - best} {
		joined := w.p
		joined.msg = w.joined[i]
		hits := r.m.find([]byte(joined.msg))
		if read, _ := r.applyRules(&joined, &hits); read {
			return true
		}
	}
	return false
}

// settle gives up on the rest of a line: what of it can be read is, and it is
// counted as half read.
func (r *Reader) settle(w *wrapped) {
	saved := r.current
	r.enter(&w.p)
	if incomplete(w.p.msg) {
		r.applyJoined(w)
	}
	begun := w.missed == missedMemory && strings.HasSuffix(w.p.source, ".py") && w.p.level != "ERROR" &&
		!r.known.MatchString(head(w.p.msg, maxFigure))
	if begun || r.countsUnread(&w.p) {
		r.unread(&w.p)
	}
	r.current = saved
}

// Events are the moments of the run in the order of their lines.
func (r *Reader) Events() []runner.LogEvent { return r.events }

// openEngine is the run that a banner belongs to: the current one, unless that
// had this engine before.
func (r *Reader) openEngine(cur *run, p *piece) *run {
	key := p.proc.name
	if cur.banners[key] || len(cur.banners) > 0 && p.proc.dp < 0 || cur.done {
		cur = r.nextRun(p)
	}
	cur.claim(p, roleOf(p), cur.dp)
	r.state.own(cur, p)
	if cur.banners == nil {
		cur.banners = make(map[string]bool)
	}
	cur.banners[key] = true
	cur.ready = false
	r.current = cur
	return cur
}

// nextRun opens a run of the same group. A sender that is known, or has no
// number, is a program that was started again: what its processes were called
// before says nothing any more.
func (r *Reader) nextRun(p *piece) *run {
	n := r.newRun()
	n.group = r.state.name
	if n.dropped {
		r.more++
	} else if p.proc.pid == 0 || r.state.pids[senderKey(p)] != nil {
		clear(r.state.pids)
	}
	r.state.add(n)
	r.current = n
	return n
}

// add puts a run behind the others, one that is not told in place of the last
// that is not told either.
func (g *groupState) add(n *run) {
	if last := len(g.runs) - 1; n.dropped && last >= 0 && g.runs[last].dropped {
		g.runs[last] = n
		return
	}
	g.runs = append(g.runs, n)
}

// own notes whom a process works for.
func (g *groupState) own(r *run, p *piece) {
	if p.proc.pid != 0 && !r.dropped && len(g.pids) < maxSenders {
		g.pids[senderKey(p)] = r
	}
}

// A run is the facts of one engine and its front end.
type run struct {
	reader  *Reader
	root    *run              // the first run of the same server: its front end speaks for all
	group   string            // the container or host of its lines
	stage   string            // "Stage-2", "" without one
	dp      int               // its data-parallel rank, -1 where it has none or ranks share the run
	members map[string]string // the processes of which it has one, by their role
	first   runner.AccountSource
	senders map[string]*sender
	names   []string        // senders, in order of appearance
	banners map[string]bool // the engines of this run, by their process's name
	fronts  map[string]bool // the first lines of its front end, by kind

	version, engine, modelRunner, runnerFile, platform, architecture     *word
	usingLen, fitLen, kvLen, chunked, backend                            *word
	rocm, cuda, captured, graphsOff, estimateOff, estimateOn, compileOff *word
	device, deviceName, v1File                                           *word
	estimateToCome, unified, mmSkipped                                   *word
	compileWarm, compileCold, initSeconds, initCompile                   *word
	blockSize, kvDtype, overrideBlocks, v0Blocks, hybrid                 *word
	tokens, concurrency, blocks, cpuBlocks                               *figure
	externalWeights, hostKV                                              *figure

	banner   map[string]string
	bannerAt runner.AccountSource
	args     map[string]string
	argsAt   runner.AccountSource
	// argsServer: the arguments are a server's command line, which holds for all
	// that it starts; those of LLM() hold once the engine agrees.
	argsServer bool

	dropped       bool   // one too many
	down          bool   // was told to end
	ready, done   bool   // takes requests; the benchmark printed its result
	server, fatal bool   // serves others; the engine said that it is dead
	readyIn       string // the stream that told it
	stageAt       mark   // the last line that showed a stage
	stageIn       string // its stream
	failLen       *word
	failKV        *figure
	bars          map[string]int

	known       int // lines that hold something of the account
	failures    []failure
	envelopes   int
	shell       *failure // the envelope that says most, for want of a cause
	unreadLines []runner.AccountSource
	unreadCount int64
}

// A sender is a process of the engine and the figures that it printed.
type sender struct {
	proc      process
	seen      int
	worldRank int
	facts     [numRankFacts][]figure
	compile   float64
	compileAt runner.AccountSource
}

func senderKey(p *piece) string {
	if p.proc.pid == 0 {
		return ""
	}
	return strconv.Itoa(p.proc.pid) + "@" + p.proc.host
}

// sender is the process that a piece comes from. The same process may change
// its name once it knows its rank.
func (r *run) sender(p *piece) *sender {
	key := senderKey(p)
	s := r.senders[key]
	if s == nil {
		if len(r.senders) >= maxSenders {
			key = ""
			if s = r.senders[key]; s != nil {
				return s
			}
		}
		s = &sender{proc: p.proc, seen: len(r.names), worldRank: -1}
		r.senders[key] = s
		r.reader.state.own(r, p)
		r.names = append(r.names, key)
	}
	if p.proc.hasParallel || p.proc.dp >= 0 || p.proc.rank >= 0 || s.proc.name == "" {
		s.proc = p.proc
	}
	return s
}

func (r *run) setRank(p *piece, f rankFact, v figure) {
	s := r.sender(p)
	if l := s.facts[f]; len(l) < 64 {
		s.facts[f] = append(l, v)
	} else {
		l[len(l)-1] = v
	}
}

// at is where a piece stands.
func (p *piece) at() runner.AccountSource {
	if p.kept == "" { // one copy for all the figures of a line
		p.kept = cut(strings.TrimSpace(p.raw), maxText)
	}
	return runner.AccountSource{File: p.file, Line: p.line, Text: p.kept}
}

// cut shortens s to at most n bytes without breaking a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xC0 == 0x80 {
		n--
	}
	return strings.Clone(s[:n])
}

func (r *run) setWord(w **word, p *piece, val string) {
	*w = &word{val: strings.Clone(val), src: p.at()}
}

func (r *run) setFirst(w **word, p *piece, val string) {
	if *w == nil {
		r.setWord(w, p, val)
	}
}

// addMin keeps the smallest of the figures that several workers or engines
// print: that is the one in force.
func (r *run) addMin(f **figure, p *piece, text string) {
	v, half, ok := number(text)
	if ok && (*f == nil || v <= (*f).val) {
		*f = &figure{val: v, half: half, src: p.at()}
	}
}

func (r *run) addCompile(p *piece, seconds string) {
	if v, _, ok := number(seconds); ok {
		s := r.sender(p)
		s.compile += v
		s.compileAt = p.at()
	}
}

// front says that a front end prints one of its first lines: that begins a new
// run if this one has an engine and is past its start, or printed the same
// line before (a container that was started again).
func (r *run) front(p *piece, kind string) {
	past := r.ready || r.done || r.envelopes > 0 || r.fronts[kind]
	known := len(r.banners) > 0 || r.engineSpoke() && r.first.File == p.file // of two streams the order is not known
	if known && past && !strings.HasPrefix(p.proc.name, "ApiServer_") {
		r = r.reader.nextRun(p)
	}
	if role := roleOf(p); role != "" {
		r.claim(p, role, r.dp)
	}
	r.reader.state.own(r, p)
	if r.fronts == nil {
		r.fronts = make(map[string]bool)
	}
	r.fronts[kind] = true
}

// otherRE are lines that only other engines print.
var otherRE = regexp.MustCompile(`(/sglang/|\bsglang\.|server_args=ServerArgs\(|\bavail mem=|\bsglang serve\b)|` +
	`(\[TensorRT-LLM\]|\[TRT-LLM\]|/tensorrt_llm/|\btensorrt_llm\.)|(\btext_generation_launcher\b)|(\bllama_model_loader: )`)

// noteOther notes that another engine speaks.
func (r *Reader) noteOther(p *piece) {
	if r.other != "" {
		return
	}
	m := otherRE.FindStringSubmatch(p.msg)
	for i, name := range []string{"SGLang", "TensorRT-LLM", "Text Generation Inference", "llama.cpp"} {
		if m != nil && m[i+1] != "" {
			r.other = name
		}
	}
}

// noteModule keeps a module that only V1 has.
func (r *run) noteModule(p *piece) {
	switch base := p.source[strings.LastIndexByte(p.source, '/')+1:]; base {
	case "gpu_model_runner.py", "gpu_worker.py", "kv_cache_utils.py", "core.py", "multiproc_executor.py":
		r.setFirst(&r.v1File, p, base)
	}
}

// noteRunnerOf tells the model runner from the module that speaks.
func (r *run) noteRunnerOf(p *piece) {
	base := p.source[strings.LastIndexByte(p.source, '/')+1:]
	if strings.HasSuffix(base, "model_runner.py") {
		r.setFirst(&r.runnerFile, p, base)
	}
}

// notePlatform tells the platform from the module that speaks: cuda.py is the
// platform's own, other modules with that word in their names serve ROCm too.
func (r *run) notePlatform(p *piece) {
	switch {
	case strings.Contains(p.source, "rocm"):
		r.setFirst(&r.rocm, p, "rocm")
	case containsAny(p.source, "ascend", "npu", "model_runner_v1.py", "worker_v1.py"), strings.Contains(p.msg, "NPU"):
		r.setFirst(&r.device, p, "npu")
	case hasAnyPrefix(p.source[strings.LastIndexByte(p.source, '/')+1:], "xpu_", "tpu_", "hpu_", "cpu_"):
		base := p.source[strings.LastIndexByte(p.source, '/')+1:]
		r.setFirst(&r.device, p, base[:3])
	case p.source == "cuda.py", strings.HasSuffix(p.source, "/cuda.py"):
		r.setFirst(&r.cuda, p, "cuda")
	}
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// setReady notes that the engine takes requests, and which stream told it
// first.
func (r *run) setReady(p *piece) {
	if !r.ready {
		r.ready, r.readyIn = true, p.stream
		r.enterStage(p, stageServing)
	}
}

// stageByEvent notes the stage that a moment of the run begins.
func (r *run) stageByEvent(p *piece, kind runner.EventKind) {
	switch kind {
	case runner.EventEngineReady:
		r.setReady(p)
	case runner.EventLoadStart:
		r.enterStage(p, stageLoad)
	case runner.EventLoadEnd, runner.EventProfileStart:
		r.enterStage(p, stageProfiling)
	case runner.EventProfileEnd, runner.EventKVReady:
		r.enterStage(p, stageKV)
	case runner.EventCaptureStart:
		if r.stageAt.stage != stageProfiling { // the V2 runner captures for its estimate first
			r.enterStage(p, stageCapture)
		}
	case runner.EventCaptureEnd:
		if r.stageAt.stage == stageKV || r.stageAt.stage == stageCapture {
			r.enterStage(p, stageWarmup)
		}
	}
}

// event notes a moment of the run.
func (r *run) event(p *piece, kind runner.EventKind, took string) {
	r.stageByEvent(p, kind)
	e := runner.LogEvent{
		Kind: kind, Arrived: p.arrived, Stamp: p.stamp, Rank: -1, PID: p.proc.pid, File: p.stream, Line: p.line,
	}
	if s := r.senders[senderKey(p)]; s != nil && isWorker(s.proc.name) {
		e.Rank = r.rankOf(s)
	}
	if v, _, ok := number(took); ok && took != "" {
		e.Took = time.Duration(v * float64(time.Second))
	}
	if len(r.reader.events) < maxEvents && !r.reader.opts.NoEvents {
		r.reader.events = append(r.reader.events, e)
	}
	if r.reader.opts.Event != nil {
		r.reader.opts.Event(e)
	}
}

// applyBar turns a tqdm bar into moments: the first bar of a kind begins it,
// each iteration that it counts is done.
func applyBar(r *run, p *piece, m []string) {
	if r.bars == nil {
		r.bars = make(map[string]int)
	}
	done, total := atoi(m[2]), atoi(m[3])
	key := m[1]
	last, seen := r.bars[key]
	begin, iter := runner.EventWarmupStart, runner.EventWarmupIter
	switch m[1] {
	case "Capturing CUDA graph":
		// The V2 model runner captures twice from 0.29 on, the first time for its
		// estimate: a capture ends the bars before it. A bar that is full may
		// arrive after the line that ends its capture.
		if !seen && done < total {
			r.event(p, runner.EventCaptureStart, "")
			r.bars[key] = done
		}
		return
	case "Bench iterations", "Profiling iterations":
		begin, iter = runner.EventMeasureStart, runner.EventMeasureIter
	}
	if done > total || total > maxEvents {
		return
	}
	if !seen {
		r.setReady(p)
		r.event(p, begin, "")
	}
	for ; last < done; last++ {
		r.event(p, iter, "")
	}
	r.bars[key] = max(last, done)
}

// memoryRE is what a memory figure looks like.
var (
	memoryRE     = regexp.MustCompile(`(?:^|[^\w.~])-?\d[\d.,]*\s?(?:GiB|GB|MiB|MB|Gib)\b`)
	memoryWordRE = regexp.MustCompile(`(?i)\bmemory|\bkv[ _]?cache|\bweights?\b|\bactivations?\b|` +
		`cuda ?graph|\bVRAM\b|\bHBM\b|\bblocks?\b`)
)

func (r *Reader) looksLikeMemory(s string) bool {
	s = head(s, maxFigure)
	return memoryRE.MatchString(s) && memoryWordRE.MatchString(s) && !r.known.MatchString(s)
}

// countsUnread reports whether a line looks like a memory figure of vLLM. Only
// its records count: what other programs print beside it is theirs.
func (r *Reader) countsUnread(p *piece) bool {
	if isFront(p.proc.name) {
		return false
	}
	text := head(p.msg, maxFigure)
	if p.level != "" && strings.HasSuffix(p.source, ".py") {
		return memoryRE.MatchString(text) && !r.known.MatchString(text)
	}
	return (isWorker(p.proc.name) || isEngine(p.proc.name)) && r.looksLikeMemory(text)
}

// unread keeps a line that looks like a memory figure, or begins as one, and was not understood.
func (r *Reader) unread(p *piece) {
	r.current.unreadCount++
	if len(r.current.unreadLines) < 50 {
		r.current.unreadLines = append(r.current.unreadLines, p.at())
	}
}
