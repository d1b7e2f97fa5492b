package log

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// The kinds of failure that the code itself looks at; failures.txt has all.
const (
	KindOOM                = "oom"
	KindNoKVMemory         = "no_kv_memory"
	KindKVTooSmall         = "kv_too_small"
	KindFreeMemoryCheck    = "free_memory_check"
	KindMaxModelLen        = "max_model_len_too_large"
	KindHub                = "hf_hub"
	KindTPDivisibility     = "tp_divisibility"
	KindBadArgument        = "bad_argument"
	KindDtypeUnsupported   = "dtype_unsupported"
	KindNCCL               = "nccl"
	KindWorkerDied         = "worker_died"
	KindHostOOM            = "host_oom"
	KindModuleMissing      = "module_missing"
	KindBuildFailed        = "build_failed"
	KindPortInUse          = "port_in_use"
	KindUnknown            = "unknown"
	maxFailures            = 200
	maxFailureText         = 4096
	traceFrameLines        = 3000 // a traceback longer than this is not one
	traceExtraLines        = 40   // lines of any sender that may follow an exception and still end its message
	maxTraces              = 64
	maxExtraLinesOfMessage = 12
)

// A failure is one exception or error record.
type failure struct {
	kind       string
	class      string // "torch.OutOfMemoryError"; "" for a record without one
	text       string // its message, with the lines that follow it
	level      string
	proc       process
	stream     string
	src        runner.AccountSource
	afterReady bool
	noted      bool // its figures were taken
	killed     bool // somebody else says that the process was killed
	frame      mark // the frame of its traceback that shows the stage
	stageAt    mark // the stage that the lines before it show
	chained    bool // "During handling of the above exception, another exception occurred"
	headless   bool // and that exception is not in the log
}

// A trace is a traceback that is being printed.
type trace struct {
	key    string
	level  string
	prefix string // what stood before "Traceback", and stands before its other lines
	left   int
	fail   *int // index of its failure once the exception was read
	extra  int
	owner  *run
}

var (
	portRE  = regexp.MustCompile(`EADDRINUSE|[Aa]ddress already in use`)
	emptyRE = regexp.MustCompile(`^(?:RuntimeError|Exception|EngineDeadError|vllm\.\S*EngineDeadError)?:? ?` +
		`(?:EngineCore failed to start|[Ee]ngine core initialization failed|WorkerProc initialization failed|` +
		`Engine process failed to start|EngineCore encountered an issue|WorkerProc failed to start|` +
		`EngineCore encountered a fatal error|WorkerProc hit an exception)`)
	// exceptionRE is the line that ends a traceback.
	exceptionRE  = regexp.MustCompile(`^((?:[A-Za-z_]\w*\.)*[A-Z_a-z]\w*)(?:: (.*))?$`)
	errorLineRE  = regexp.MustCompile(`^((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|IsEnabled|Timeout)): (.+)$`)
	errorInRE    = regexp.MustCompile(`\b((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception))(?:: |\(['"])(.+)$`)
	argparseRE   = regexp.MustCompile(`^\s*(?:v(?:llm|ramsweep session)[\w \-]*|\S+\.py|python\S* -m \S+): error: .+$`)
	torchRankRE  = regexp.MustCompile(`^\[rank(\d+)\]: ?`)
	accessRE     = regexp.MustCompile(`^(?:INFO|WARNING|ERROR|DEBUG|CRITICAL):\s`) // uvicorn's lines
	notFailureRE = regexp.MustCompile(`^(?:KeyboardInterrupt|SystemExit|asyncio\.\S*CancelledError|CancelledError|` +
		`GeneratorExit|BrokenPipeError|ConnectionResetError|StopIteration|zmq\.error\.\w+)$`)
)

func (r *Reader) classify(class, text string) string {
	s := class + ": " + head(text, maxError)
	for _, k := range r.kinds {
		if k.re != nil && k.re.MatchString(s) {
			return k.kind
		}
	}
	return KindUnknown
}

// traceKey tells the lines of one traceback from others.
func traceKey(p *piece) string {
	return p.stream + "\x00" + p.group + "\x00" + senderKey(p) + "\x00" + p.level + "\x00" + p.source
}

// trace follows tracebacks, each by its sender, and reports whether the piece
// was a line of one and nothing else.
func (r *Reader) trace(p *piece) bool {
	if m := torchRankRE.FindString(head(p.msg, 20)); m != "" {
		p.msg = p.msg[len(m):]
	}
	key := traceKey(p)
	t := r.traces[key]
	r.ageTraces()
	if i := strings.Index(p.msg, "Traceback (most recent call last)"); i >= 0 {
		if len(r.traces) < maxTraces {
			prefix := strings.Clone(cut(p.msg[:i], 200))
			r.traces[key] = &trace{key: key, level: p.level, prefix: prefix, left: traceFrameLines, owner: r.current}
		}
		return true
	}
	if t != nil {
		p.msg = withoutPrefix(p.msg, t.prefix)
	}
	if containsAny(p.msg, "direct cause of the following", "During handling of the above") {
		r.noteChain(p)
		delete(r.traces, key)
		return true
	}
	switch {
	case t == nil && r.tail.follows(p): // of a message that was wrapped
		return r.traceMessage(r.tail.trace, p)
	case t == nil:
		return false
	case t.fail == nil:
		return r.traceFrame(t, p)
	}
	return r.traceMessage(t, p)
}

// A tail is the end of an exception's message, which the next line may go on.
type tail struct {
	*trace
	stream, group string
	line          int
}

// follows reports whether a piece is the next line, and no record of its own,
// behind a message that does not end as a sentence does.
func (t *tail) follows(p *piece) bool {
	if t.trace == nil || p.stream != t.stream || p.group != t.group || p.line != t.line+1 ||
		p.level != "" || p.proc.pid != 0 || p.lead || startRE.MatchString(p.msg) {
		return false
	}
	return !sentenceRE.MatchString(t.owner.failures[*t.fail].text)
}

var sentenceRE = regexp.MustCompile(`(?:[^\d.]\.|[)\]}"'])$`)

// traceMessage adds a line to the message of a traceback's exception.
func (r *Reader) traceMessage(t *trace, p *piece) bool {
	if t.extra++; t.extra > maxExtraLinesOfMessage || accessRE.MatchString(p.msg) {
		delete(r.traces, t.key)
		return false
	}
	wrapped := r.tail.trace == t && r.tail.follows(p)
	belongs := (p.level == t.level || wrapped) && (p.level != "" || !errorLineRE.MatchString(p.msg))
	belongs = belongs && (strings.TrimSpace(p.msg) == "" || !isMargin(p.msg))
	if f := &t.owner.failures[*t.fail]; len(f.text) < maxFailureText && belongs {
		f.text = cut(f.text+"\n"+strings.TrimSpace(p.msg), maxFailureText)
		if f.rank() < 4 && f.kind != KindPortInUse {
			f.kind = r.classifyAll(f.class, f.text, f.kind)
		}
		t.owner.noteFailureFigures(p, f)
		r.tail = tail{trace: t, stream: p.stream, group: p.group, line: p.line}
		return t.level != ""
	}
	return false
}

// classifyAll tells the kind of a message of several lines, which may be one
// that was wrapped; not of a weaker kind than before.
func (r *Reader) classifyAll(class, text, before string) string {
	parts := unwrapped(text)
	for _, joined := range []string{text, parts[0], parts[1]} {
		if kind := r.classify(class, joined); kind != KindUnknown && kind != before {
			return kind
		}
	}
	return before
}

// withoutPrefix takes off a prefix whose numbers may differ: the label of a
// collector, its time, the margin of an exception group.
func withoutPrefix(s, prefix string) string {
	digit := func(s string, i int) bool { return i < len(s) && s[i] >= '0' && s[i] <= '9' }
	i := 0
	for j := 0; j < len(prefix); {
		if i == len(s) {
			break // nothing but the prefix, or its beginning
		}
		if digit(prefix, j) != digit(s, i) {
			return s
		}
		if !digit(prefix, j) {
			if s[i] != prefix[j] {
				return s
			}
			i, j = i+1, j+1
			continue
		}
		for digit(prefix, j) {
			j++
		}
		for digit(s, i) {
			i++
		}
	}
	return s[i:]
}

// ageTraces ends the tracebacks whose end never came.
func (r *Reader) ageTraces() {
	for k, t := range r.traces {
		if t.left--; t.left <= 0 {
			delete(r.traces, k)
		}
	}
}

func (r *Reader) traceFrame(t *trace, p *piece) bool {
	if hasAnyPrefix(p.msg, " ", "\t", "[Previous line repeated") {
		return true
	}
	m := exceptionRE.FindStringSubmatch(p.msg)
	if m != nil && !looksRaised(m[1]) {
		return true // the rest of a frame that was wrapped
	}
	if m == nil {
		delete(r.traces, t.key)
		return false
	}
	t.owner = r.current
	t.left = traceExtraLines
	if n := r.addChained(p, t.level, m[1], m[2]); n >= 0 {
		t.fail = &n
		r.tail = tail{trace: t, stream: p.stream, group: p.group, line: p.line}
	} else {
		delete(r.traces, t.key)
	}
	return true
}

// addChained keeps an exception, and whether one that came before it caused it.
func (r *Reader) addChained(p *piece, level, class, text string) int {
	key := traceKey(p)
	chained := r.chains[key]
	delete(r.chains, key)
	told := func(f failure) bool { return f.proc.pid == p.proc.pid && !f.headless }
	// The hub's library raises LocalEntryNotFoundError for another error alone.
	headless := (chained || strings.HasSuffix(class, "LocalEntryNotFoundError")) &&
		!slices.ContainsFunc(r.current.failures, told)
	n := r.current.addFailure(p, level, class, text)
	if n >= 0 {
		r.current.failures[n].chained, r.current.failures[n].headless = chained, headless
	}
	return n
}

// noteChain notes that the next exception of a sender goes back to another one.
func (r *Reader) noteChain(p *piece) {
	if len(r.chains) < maxTraces {
		r.chains[traceKey(p)] = true
	}
}

// looksRaised reports whether a name is one of an exception: of a module, or in
// capitals.
func looksRaised(class string) bool {
	name := class[strings.LastIndexByte(class, '.')+1:]
	return name != class || name[0] >= 'A' && name[0] <= 'Z'
}

// failureLine reads an error that stands outside of a traceback.
func (r *Reader) failureLine(p *piece) bool {
	switch p.level {
	case "INFO", "DEBUG", "WARNING":
		return false
	}
	if len(p.msg) > maxError {
		p.msg = p.msg[:maxError]
	}
	if p.proc.pid == 0 && p.level == "" && r.killed.MatchString(p.msg) {
		r.killLine(p)
		return true
	}
	text := strings.TrimLeft(p.msg, " \t│|")
	if strings.HasPrefix(text, "raise ") {
		r.noteChain(p) // source code of a traceback that was cut: there may be others before it
		return true
	}
	if strings.HasPrefix(p.msg, "    ") {
		if m := errorLineRE.FindStringSubmatch(text); m != nil && r.classify(m[1], m[2]) != KindUnknown {
			r.lone(p, m[1], m[2]) // pasted with a margin, in a box
		}
		return true
	}
	if r.envelopes.MatchString(p.msg) && p.level != "" || emptyRE.MatchString(p.msg) {
		r.current.envelope(p)
	}
	if m := argparseRE.FindStringSubmatch(p.msg); m != nil && p.level == "" {
		r.current.addFailure(p, p.level, "", strings.TrimSpace(p.msg))
		return true
	}
	if m := errorLineRE.FindStringSubmatch(text); m != nil {
		r.lone(p, m[1], m[2])
		return true
	}
	return r.failureText(p)
}

// killLine keeps what a kernel, a container runtime or a supervisor says of a
// process that was killed. One that ends while it is shut down is no failure.
func (r *Reader) killLine(p *piece) {
	if m := containerRE.FindStringSubmatch(p.msg); m != nil && r.groups[m[1]] != nil {
		runs := r.groups[m[1]].runs
		r.current = runs[len(runs)-1].root
	}
	text := strings.TrimSpace(p.msg)
	if r.current.down && signalOf(text) == 9 && exitRE.MatchString(text) || len(r.current.failures) >= maxFailures {
		return
	}
	f := r.current.failure(p, text)
	f.kind, f.killed = KindWorkerDied, true
	if r.current.failures = append(r.current.failures, f); len(r.current.failures) == 1 {
		r.current.event(p, runner.EventError, "")
	}
}

var (
	// containerRE is docker compose's word on a container that ended.
	containerRE = regexp.MustCompile(`^(\S+) exited with code`)
	exitRE      = regexp.MustCompile(`[Ee]xited|Exit Code`)

	// signalRE finds the signal that ended a process: as a negative exit code, as
	// 128 and more of a shell's or a container's, or by its name.
	signalRE = regexp.MustCompile(`(?:exit ?code *:? *|Failed core proc\(s\): \{[^}]*?: )-(\d+)|` +
		`(?:exited with code |Exit Code: +|Exited \(|"ExitCode": *)1(\d\d)\b|` +
		`[Ss]ignals?(?:\.SIG[A-Z]+:)? \(?(\d+)\b|status=(\d+)/[A-Z]`)
)

// signalNames are the words of a shell, and the signal that each stands for.
func signalNames() map[string]int {
	return map[string]int{
		"us error": 7, "SIGBUS": 7, "Segmentation fault": 11, "SIGSEGV": 11, "Aborted": 6, "SIGABRT": 6,
		"Illegal instruction": 4, "SIGILL": 4, "Floating point exception": 8, "SIGFPE": 8, "Killed": 9, "SIGKILL": 9,
	}
}

// signalOf is the signal that a message says ended a process, 0 for none.
func signalOf(message string) int {
	if m := signalRE.FindStringSubmatch(message); m != nil {
		if m[2] != "" {
			return atoi("1"+m[2]) - 128
		}
		return atoi(m[1] + m[3] + m[4])
	}
	names := signalNames()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if strings.Contains(message, name) {
			return names[name]
		}
	}
	return 0
}

// lone keeps an exception without a traceback, and follows its message into the
// next lines.
func (r *Reader) lone(p *piece, class, text string) {
	n := r.addChained(p, p.level, class, text)
	if n >= 0 && len(r.traces) < maxTraces {
		key := traceKey(p)
		t := &trace{
			key: key, level: p.level, left: maxLoneLines, fail: &n, owner: r.current,
			extra: maxExtraLinesOfMessage - maxLoneLines,
		}
		r.traces[key] = t
		r.tail = tail{trace: t, stream: p.stream, group: p.group, line: p.line}
	}
}

const maxLoneLines = 6

// failureText reads a record without an exception of its own that tells one.
func (r *Reader) failureText(p *piece) bool {
	kind := r.classify("", p.msg)
	switch kind {
	case KindUnknown, KindHub, KindBadArgument:
		return false
	}
	if p.level == "" && strings.HasPrefix(p.msg, " ") {
		return false
	}
	if m := errorInRE.FindStringSubmatch(p.msg); m != nil && r.classify(m[1], m[2]) != KindUnknown {
		r.current.addFailure(p, p.level, m[1], m[2])
		return true
	}
	r.current.addFailure(p, p.level, "", strings.TrimSpace(p.msg))
	return true
}

// envelope notes a line that says only that something failed.
func (r *run) envelope(p *piece) {
	r.envelopes++
	if r.shell == nil || deadRE.MatchString(p.msg) && !deadRE.MatchString(r.shell.text) {
		text := strings.TrimSpace(p.msg)
		shell := r.failure(p, text)
		r.shell = &shell
		if deadRE.MatchString(text) {
			r.shell.kind = KindWorkerDied
		}
	}
	if r.reader.fatal.MatchString(p.msg) && r.ready {
		r.fatal = true
	}
}

func (r *run) failure(p *piece, text string) failure {
	return failure{
		kind: KindUnknown, text: cut(text, maxFailureText), level: p.level, proc: p.proc, stream: p.stream, src: p.at(),
		afterReady: r.ready, stageAt: r.stageAt,
	}
}

// addFailure keeps an exception and returns its index, -1 if it was not kept.
func (r *run) addFailure(p *piece, level, class, text string) int {
	switch level {
	case "INFO", "DEBUG", "WARNING":
		return -1
	}
	if notFailureRE.MatchString(class) && !portRE.MatchString(text) {
		return -1
	}
	full := class
	if text != "" {
		full += ": " + text
	}
	if emptyRE.MatchString(full) {
		r.envelope(p)
		return -1
	}
	if len(r.failures) >= maxFailures {
		return -1
	}
	f := r.failure(p, text)
	f.kind, f.class, f.level = r.reader.classify(class, text), class, level
	f.frame = r.reader.takeFrame(p)
	if r.reader.fatal.MatchString(full) && r.ready {
		r.fatal = true
	}
	r.noteFailureFigures(p, &f)
	if r.failures = append(r.failures, f); len(r.failures) == 1 {
		r.event(p, runner.EventError, "")
	}
	return len(r.failures) - 1
}

var (
	freeCheckRE = regexp.MustCompile(`(?:Free memory on device\s?\S*|Available memory on node \d+) \(` + num + `/` + num +
		` GiB\) .*?less than (?:desired|requested) .*?\(` + num + `, ` + num + ` GiB\)`)
	kvSmallRE = regexp.MustCompile(`max seq len \((\d+)\), \(?` + num + ` (?:GiB|GB) KV cache is needed, ` +
		`which is larger than the available KV cache memory \(` + num + ` (?:GiB|GB)\)`)
	kvLongestRE = regexp.MustCompile(`estimated maximum model length is (\d+)`)
	kvTokensRE  = regexp.MustCompile(`max seq len \((\d+)\) is larger than the maximum number of tokens ` +
		`that can be stored in KV cache \((\d+)\)`)
)

// noteFailureFigures takes from a failure what it says of the rank's memory, once.
func (r *run) noteFailureFigures(p *piece, f *failure) {
	for _, text := range unwrapped(f.text) {
		switch m := []string(nil); {
		case f.noted:
		case f.kind == KindFreeMemoryCheck:
			m = freeCheckRE.FindStringSubmatch(text)
			sets(1, fFailFree, fFailTotal, fFailUtil, fFailRequested)(r, p, m)
			f.noted = m != nil
		case f.kind == KindKVTooSmall:
			f.noted = r.noteKVTooSmall(p, text)
		}
	}
}

func (r *run) noteKVTooSmall(p *piece, text string) bool {
	if m := kvSmallRE.FindStringSubmatch(text); m != nil {
		r.setWord(&r.failLen, p, m[1])
		if v, half, ok := number(m[3]); ok {
			r.failKV = &figure{val: v, half: half, src: p.at()}
		}
		return true
	}
	m := kvTokensRE.FindStringSubmatch(text)
	if m != nil {
		r.setWord(&r.failLen, p, m[1])
	}
	return m != nil
}

// cause picks the failure that explains the others, nil where the run went
// well.
func (r *run) cause() *failure {
	if r.done {
		return nil
	}
	var best *failure
	for i := range r.failures {
		f := &r.failures[i]
		if !r.counts(f) {
			continue
		}
		if best == nil || better(f, best) {
			best = f
		}
	}
	if best == nil && r.shell != nil && (!r.up() || r.fatal) {
		return r.shell // the cause is in another file, or was never written
	}
	return best
}

// deadRE is an envelope that tells a process killed by a signal.
var deadRE = regexp.MustCompile(`Failed core proc\(s\): \{[^}]*: -\d+|died unexpectedly|died, exit code`)

// counts reports whether a failure can have ended the run: one before the
// engine was up does not if it came up nevertheless; one after it does if the
// engine says that it is dead, or if it ended a program that serves nobody.
func (r *run) counts(f *failure) bool {
	if !r.up() {
		return true
	}
	if !f.afterReady && f.stream == r.readyIn {
		return false // in another stream the order is not known
	}
	if f.kind == KindPortInUse || f.killed {
		return true // uvicorn binds after it said that all is well
	}
	if f.rank() > 0 && (isEngine(f.proc.name) || isWorker(f.proc.name)) {
		return true
	}
	return r.fatal || !r.server && f.level == "" && !isFront(f.proc.name)
}

// rank is how well a failure explains others: a worker that dies of bad memory
// takes its neighbours' NCCL down with it.
func (f *failure) rank() int {
	kind := f.kind
	if kind == KindPortInUse {
		kind = KindBadArgument
	}
	weak := []string{KindUnknown, KindWorkerDied, KindNCCL, KindBadArgument}
	if i := slices.Index(weak, kind); i >= 0 {
		return i
	}
	return len(weak)
}

func better(f, best *failure) bool {
	a, b := f.rank(), best.rank()
	if isFront(f.proc.name) != isFront(best.proc.name) && (a > 0) == (b > 0) {
		return isFront(best.proc.name)
	}
	if later := f.kind == KindNCCL || f.kind == KindWorkerDied; later && f.class == "" &&
		best.kind == KindUnknown && best.class != "" && !isFront(best.proc.name) {
		return false // the others end, and say so, when one has failed
	}
	if a != b {
		return a > b
	}
	if f.kind == KindHub && hubMayAnswer(f.text) != hubMayAnswer(best.text) {
		return !hubMayAnswer(f.text) // that it said no is why it then was not reached
	}
	// In a chain ("During handling of the above exception ...") the last says
	// most; the same error of another worker, or printed again, says nothing new.
	return f.chained && f.stream == best.stream && f.proc.pid == best.proc.pid && f.level == best.level
}

// OutcomeOf is the outcome of a run that failed, by the failure that its log
// tells (nil: none). retriable says that the same run may well succeed a minute later: the hub, NCCL, a port in
// use, memory that others held.
func OutcomeOf(e *runner.AccountError) (outcome runner.Outcome, retriable bool) {
	if e == nil {
		return runner.OutcomeEngineError, false
	}
	switch e.Kind {
	case KindOOM, KindHostOOM:
		return runner.OutcomeOOM, false
	case KindNoKVMemory:
		return runner.OutcomeNoKVMemory, false
	case KindKVTooSmall:
		return runner.OutcomeKVTooSmall, false
	case KindMaxModelLen, KindBadArgument, KindTPDivisibility, KindDtypeUnsupported:
		return runner.OutcomeBadArgument, false
	case KindFreeMemoryCheck, KindNCCL, KindWorkerDied, KindPortInUse:
		return runner.OutcomeEngineError, true
	case KindHub:
		return runner.OutcomeEngineError, hubMayAnswer(e.Message)
	}
	busy := containsAny(e.Message, "device is busy", "busy or unavailable")
	return runner.OutcomeEngineError, busy
}

// hubMayAnswer tells a hub that does not answer now from one that said no.
func hubMayAnswer(message string) bool {
	return !containsAny(message,
		"gated", "401", "403", "404", "Repository Not Found", "not a valid model identifier", "OfflineMode",
		"outgoing traffic has been disabled", "offline mode is enabled", "HFValidationError", "Repo id must",
		"Cannot find any model weights")
}

func containsAny(s string, texts ...string) bool {
	return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(s, text) })
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(s, prefix) })
}
