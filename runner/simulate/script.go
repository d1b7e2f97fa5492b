package simulate

import (
	"strings"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// Who does a step: a rank from 0 on, or one of these.
const (
	front  = -1 // the process that was started: `vllm`
	engine = -2 // the engine process, where there is one
)

// A step is something that happens at one simulated moment: a line, and what a
// GPU holds and does from then on. A step with several parts changes the
// memory first, so that a line never tells of what has not happened yet.
type step struct {
	at    float64 // simulated seconds since the start
	phase runner.Phase
	who   int
	early bool // before the worker knows its rank: "(Worker pid=N)"

	stderr bool
	level  string // "INFO": text is a log record; "": text is written as it is
	file   string // "core.py:116"
	text   string

	memory  map[int]int64 // rank: bytes held from now on
	doing   *activity
	event   *driverEvent // session mode: told to the runner
	outcome *ending      // the last step
}

// activity is what the GPUs do.
type activity struct {
	util, memUtil int32   // per cent
	power         float64 // W
	clock         int32   // MHz
}

// An ending is how the process ends.
type ending struct {
	code   int
	result []byte // of the result file; nil: none
}

// A script is one start of the simulated vllm, from the first line to the exit.
type script struct {
	steps   []step
	phases  map[runner.Phase]span // simulated seconds
	paces   map[runner.Phase][]pace
	request *request
	figures *figures // nil where it failed before the engine
	fail    *failure // nil where it went well
	result  []byte   // of the result file
}

// A span is a stretch of time, in seconds.
type span struct{ from, to float64 }

// A pace says how much of the wall time of a phase has passed at a simulated
// moment: what is short in a real run but must be seen is drawn out.
type pace struct {
	at    float64 // simulated seconds since the start
	share float64 // of the phase's wall time
}

// A builder writes a script.
type builder struct {
	script
	config  *Config
	now     float64
	phase   runner.Phase
	debug   bool // VLLM_LOGGING_LEVEL=DEBUG
	standBy bool // session mode: the script ends when the engine is up
	mute    bool // nobody reads the lines: only what the GPUs hold and do is written
}

// enter begins a phase.
func (b *builder) enter(p runner.Phase) {
	if b.phase != "" {
		b.phases[b.phase] = span{b.phases[b.phase].from, b.now}
	}
	b.phase = p
	b.phases[p] = span{b.now, b.now}
}

// wait lets simulated time pass.
func (b *builder) wait(seconds float64) { b.now += max(seconds, 0) }

// pace says that this share of the phase's wall time has passed by now.
func (b *builder) pace(share float64) {
	b.paces[b.phase] = append(b.paces[b.phase], pace{b.now, share})
}

// add appends a step now.
func (b *builder) add(s step) {
	if b.mute && s.memory == nil && s.doing == nil && s.outcome == nil {
		return
	}
	s.at, s.phase = b.now, b.phase
	b.steps = append(b.steps, s)
}

// log prints a record.
func (b *builder) log(who int, level, file, text string) {
	b.add(step{who: who, level: level, file: file, text: text})
}

// info prints an INFO record.
func (b *builder) info(who int, file, text string) { b.log(who, "INFO", file, text) }

// everyRank prints a record on every rank.
func (b *builder) everyRank(file string, text func(rank int) string) {
	for rank := range b.figures.ranks {
		b.info(rank, file, text(rank))
	}
}

// print writes text to stdout, without a record's prefix.
func (b *builder) print(text string) { b.add(step{who: front, text: text}) }

// bar writes a piece of a tqdm bar to stderr. Only the first piece carries the
// process's prefix.
func (b *builder) bar(who int, first bool, text string) {
	s := step{who: front, stderr: true, text: text}
	if first {
		s.who = who
	}
	b.add(s)
}

// hold sets what every rank holds.
func (b *builder) hold(bytes func(m *rankMemory) int64) {
	memory := map[int]int64{}
	for i := range b.figures.memory {
		memory[i] = bytes(&b.figures.memory[i])
	}
	b.add(step{memory: memory})
}

// do sets what the GPUs do: load is the share of the range between idle and
// the limit of power.
func (b *builder) do(util, memUtil int32, load float64) {
	s := speedOf(b.figures.gpu)
	clock := s.clock
	if load <= 0 {
		clock = s.clock / 6
	}
	power := (s.idle + load*(s.tdp-s.idle)) * b.figures.power
	b.add(step{doing: &activity{util, memUtil, min(power, s.tdp), clock}})
}

// finish ends the script.
func (b *builder) finish(code int, result []byte) *script {
	b.add(step{outcome: &ending{code, result}})
	b.enter("")
	delete(b.phases, "")
	b.result = result
	return &b.script
}

// budget is how many wall seconds a phase takes where time_scale is not given;
// together they are somewhat more than one second. What one sees of a run must
// stay apart as in a real one: a level that is to be recognised lasts 150 ms,
// and two rises are 250 ms apart (package runner/attribution), so that the
// phase without capture leaves its time to the warm-up.
func (s *script) budget(p runner.Phase) float64 {
	switch p {
	case runner.PhaseProfile:
		return 0.24
	case runner.PhaseMeasure:
		return 0.20
	case runner.PhaseCapture:
		return 0.25
	case runner.PhaseEngineInit:
		if s.figures != nil && s.figures.ranks > 1 {
			return 0.18 // the contexts, and NCCL as a step of its own
		}
		return 0.10
	case runner.PhaseEngineWarmup:
		if sp := s.phases[runner.PhaseCapture]; sp.to <= sp.from {
			return 0.30
		}
		return 0.12
	case runner.PhaseLoad, runner.PhaseBenchWarmup:
		return 0.10
	case runner.PhaseKVAlloc:
		return 0.08
	case runner.PhaseTeardown:
		return 0.04
	}
	return 0
}

// wall maps a moment of the script to wall time since the start.
func (s *script) wall(st *step, timeScale float64) time.Duration {
	if timeScale > 0 {
		return time.Duration(st.at / timeScale * float64(time.Second))
	}
	sum := 0.0
	for _, p := range phases() {
		sp := s.phases[p]
		if p == st.phase {
			sum += s.budget(p) * s.share(p, st.at)
			break
		}
		if sp.to > sp.from {
			sum += s.budget(p)
		}
	}
	return time.Duration(sum * float64(time.Second))
}

// share is how much of the wall time of a phase has passed at a moment.
func (s *script) share(p runner.Phase, at float64) float64 {
	sp := s.phases[p]
	last, next := pace{sp.from, 0}, pace{sp.to, 1}
	for _, mark := range s.paces[p] {
		if at < mark.at {
			next = mark
			break
		}
		last = mark
	}
	if next.at <= last.at {
		return last.share
	}
	return min(last.share+(next.share-last.share)*(at-last.at)/(next.at-last.at), 1)
}

// prefixOf is what a process puts before each of its lines.
func (s *script) prefixOf(st *step, pid func(who int) int) string {
	if s.figures == nil || st.who == front || s.figures.inProcess && s.figures.ranks == 1 {
		return ""
	}
	name := s.figures.processName(st.who, st.early)
	if name == "" {
		return ""
	}
	text := strings.ReplaceAll(name, "%d", itoa(pid(st.who)))
	if !s.figures.version.atLeast(0, 12, 0) { // coloured, even into files
		return "\x1b[1;36m(" + text + ")\x1b[0;0m "
	}
	return "(" + text + ") "
}

// processName is the name of a process with %d for its id, or "" where it
// prints without one.
func (f *figures) processName(who int, early bool) string {
	v := f.version
	switch {
	case f.v0 && who <= 0: // the driver is rank 0
		return ""
	case f.v0:
		return "VllmWorkerProcess pid=%d"
	case who == engine || f.ranks == 1:
		switch {
		case f.inProcess || !v.atLeast(0, 10, 1):
			return ""
		case !v.atLeast(0, 10, 2):
			return "EngineCore_0 pid=%d"
		case !v.atLeast(0, 16, 0):
			return "EngineCore_DP0 pid=%d"
		}
		return "EngineCore pid=%d"
	case !v.atLeast(0, 10, 1):
		return "VllmWorker rank=" + itoa(who) + " pid=%d"
	case !v.atLeast(0, 10, 2):
		return "VllmWorker TP" + itoa(who) + " pid=%d"
	case early:
		return "Worker pid=%d"
	}
	return "Worker_" + f.rankName(who) + " pid=%d"
}

// rankName names a rank by its place in the groups that are larger than one.
func (f *figures) rankName(rank int) string {
	tp := f.tp()
	var parts []string
	if f.ranks/tp > 1 {
		parts = append(parts, "PP"+itoa(rank/tp))
	}
	if tp > 1 {
		parts = append(parts, "TP"+itoa(rank%tp))
	}
	return strings.Join(parts, "_")
}

// render writes a step as bytes. A record of several lines repeats its prefix
// and puts CR before each newline, as vLLM's formatter does.
func (s *script) render(st *step, stamp time.Time, pid func(who int) int) []byte {
	if st.text == "" && st.level == "" {
		return nil
	}
	prefix := s.prefixOf(st, pid)
	if st.level == "" {
		return []byte(prefix + st.text)
	}
	file := "[" + st.file + "]"
	if s.figures != nil && !s.figures.version.atLeast(0, 8, 0) {
		file = st.file + "]"
	}
	head := st.level + " " + stamp.Format("01-02 15:04:05") + " " + file + " "
	text := strings.ReplaceAll(st.text, "\n", "\r\n"+prefix+head)
	if strings.HasPrefix(st.text, "Traceback") || st.level == "ERROR" {
		text = strings.ReplaceAll(st.text, "\n", "\n"+prefix+head)
	}
	return []byte(prefix + head + text + "\n")
}
