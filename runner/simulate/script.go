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
	stays   bool          // not before what was held stayed for Config.Stay
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
	order   []runner.Phase        // as they come
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
}

// enter begins a phase.
func (b *builder) enter(p runner.Phase) {
	if b.phase != "" {
		b.phases[b.phase] = span{b.phases[b.phase].from, b.now}
	}
	b.phase, b.order = p, append(b.order, p)
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
	s.at, s.phase = b.now, b.phase
	b.steps = append(b.steps, s)
}

// say prints the records of a moment, on every process that has them. more are
// figures beside those of the run: {name}, value, and so on.
func (b *builder) say(moment string, more ...string) {
	f := b.figures
	for _, w := range f.words.of(moment, f.runner) {
		if w.level == "DEBUG" && !b.debug {
			continue
		}
		first, last := 0, 0
		switch w.who {
		case "front":
			first, last = front, front
		case "engine":
			first, last = engine, engine
		case "ranks", "early":
			last = f.ranks - 1
		}
		for who := first; who <= last; who++ {
			text := b.fill(w.text, max(who, 0), more...)
			b.add(step{who: who, early: strings.HasPrefix(w.who, "early"), level: w.level, file: w.file, text: text})
		}
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
// together they are two to three seconds. What one sees of a run sampled every
// 100 ms must be as much as of a real one: each level lasts for a sample between the
// lines around it, which may be 20 ms late; those that nothing but their length tells
// apart (package runner/attribution) for two or three. So the phase without capture
// leaves its time to the warm-up, and a warm-up before the capture takes longer. The
// phase that fails has twice the time.
func (s *script) budget(p runner.Phase) float64 {
	wall := map[runner.Phase]float64{
		runner.PhaseEngineInit: 0.24, runner.PhaseLoad: 0.20, runner.PhaseProfile: 0.60, runner.PhaseKVAlloc: 0.16,
		runner.PhaseCapture: 0.25, runner.PhaseEngineWarmup: 0.30, runner.PhaseBenchWarmup: 0.15,
		runner.PhaseMeasure: 0.32, runner.PhaseTeardown: 0.04,
	}[p]
	f, capture := s.figures, s.phases[runner.PhaseCapture]
	switch {
	case f == nil:
	case p == runner.PhaseEngineInit && f.ranks > 1:
		wall = 0.55 // the contexts, and NCCL as a step of its own
	case p == runner.PhaseProfile && f.capturesTwice():
		wall = 1.1
	case p == runner.PhaseEngineWarmup && f.words.v33:
		wall = 0.50
	case p == runner.PhaseEngineWarmup && capture.to <= capture.from:
		wall = 0.50
	}
	if s.fail != nil && len(s.steps) > 0 && s.steps[len(s.steps)-1].phase == p {
		wall *= 2
	}
	return wall
}

// wall maps a moment of the script to wall time since the start.
func (s *script) wall(st *step, timeScale float64) time.Duration {
	if timeScale > 0 {
		return time.Duration(st.at / timeScale * float64(time.Second))
	}
	sum := 0.0
	for _, p := range s.order {
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

// prefixOf is what a process puts before each of its lines: in 0.33 before its
// records alone, the front end too.
func (s *script) prefixOf(st *step, pid func(who int) int) string {
	if s.figures == nil || s.figures.words.v33 && st.level == "" {
		return ""
	}
	name := s.figures.processName(st.who, st.early)
	if name == "" {
		return ""
	}
	return "(" + name + " pid=" + itoa(pid(st.who)) + ") "
}

// processName is the name of a process, or "" where it prints without one.
func (f *figures) processName(who int, early bool) string {
	switch {
	case who == front || f.inProcess && f.ranks == 1:
		if f.words.v33 {
			return "MainProcess"
		}
		return ""
	case who == engine || f.ranks == 1:
		if f.inProcess {
			return ""
		}
		return "EngineCore"
	case early:
		return "Worker"
	}
	return "Worker_" + f.rankName(who)
}

// rankName names a rank by its place in the groups that are larger than one.
func (f *figures) rankName(rank int) string {
	tp := f.tp
	var parts []string
	if f.ranks/tp > 1 {
		parts = append(parts, "PP"+itoa(rank/tp))
	}
	if tp > 1 {
		parts = append(parts, "TP"+itoa(rank%tp))
	}
	return strings.Join(parts, "_")
}

// render writes a step as bytes. A record of several lines repeats its prefix.
func (s *script) render(st *step, stamp time.Time, pid func(who int) int) []byte {
	if st.text == "" && st.level == "" {
		return nil
	}
	prefix := s.prefixOf(st, pid)
	if st.level == "" {
		return []byte(prefix + st.text)
	}
	head := st.level + " " + stamp.Format("01-02 15:04:05") + " [" + st.file + "] "
	return []byte(prefix + head + strings.ReplaceAll(st.text, "\n", "\n"+prefix+head) + "\n")
}
