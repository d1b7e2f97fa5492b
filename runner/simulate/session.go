package simulate

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep"
)

// In session mode this program stands in for vLLM's Python with vramsweep's own
// driver: `driver.py 3 4 -- FLAGS`. It speaks the driver's protocol, which
// package runner/vllm owns, and misbehaves on it where chaos says so.
const sessionProg = "vramsweep session"

// engineDead is what the front end sees of an engine that is no more.
const engineDead = "EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause."

// A SessionEngine runs profiles of `engine "simulator" { mode = "session" }`:
// it hands the engine of session mode jobs whose Python is the simulated one.
// It implements runner.SharedEngine.
type SessionEngine struct {
	Engine
	// Session is the engine that runs the real thing.
	Session runner.SharedEngine
	// Runs is how many runs are planned for each engine, by the profiles'
	// EngineKey.
	Runs map[string]int
}

// Run runs one attempt on the engine that is up, or a new one.
func (e *SessionEngine) Run(ctx context.Context, job *runner.Job) (*runner.Measurement, error) {
	simulated, err := e.Job(job)
	if err != nil {
		return nil, err
	}
	measurement, err := e.Session.Run(ctx, simulated)
	if err != nil {
		return nil, fmt.Errorf("simulator: %w", err)
	}
	if measurement.Session != nil {
		measurement.Session.GroupSize = e.Runs[job.Profile.EngineKey()]
	}
	return measurement, nil
}

// Job is the job that the engine of session mode gets. What is drawn for the
// engine hangs on the group, what is drawn for a profile on the profile, so
// that a resume in the middle of a group finds the same figures.
func (e *SessionEngine) Job(job *runner.Job) (*runner.Job, error) {
	return e.job(job, func(c *Config, wrapped *sweep.Profile) {
		wrapped.Engine.Python = slices.Clone(e.Self)
		s := &job.Profile.Settings
		c.Start = &sessionRequest{Profile: job.Profile.ID, Repeat: job.Repeat, InputLen: s.InputLen, OutputLen: s.OutputLen, BatchSize: s.BatchSize}
		c.Key, c.Repeat = wrapped.EngineKey(), 0
	})
}

// Wrap is a profile as the engine of session mode sees it.
func (e *SessionEngine) Wrap(p *sweep.Profile) *sweep.Profile {
	out := wrap(p, e.Self, &Config{Version: cmp.Or(p.Engine.VLLMVersion, DefaultVersion)})
	out.Engine.Python = slices.Clone(e.Self)
	return out
}

// Shares reports whether one process can serve both profiles.
func (e *SessionEngine) Shares(a, b *sweep.Profile) bool {
	return e.Session.Shares(e.Wrap(a), e.Wrap(b))
}

// Alive reports whether a process is there that would serve the profile.
func (e *SessionEngine) Alive(p *sweep.Profile) bool { return e.Session.Alive(e.Wrap(p)) }

// Close ends the process, if there is one.
func (e *SessionEngine) Close(ctx context.Context) ([]runner.Process, error) {
	return e.Session.Close(ctx)
}

// A sessionRequest is one line of the runner to the driver, as far as the
// simulator needs it.
type sessionRequest struct {
	ID        int    `json:"id,omitempty"`
	Op        string `json:"op,omitempty"`
	Profile   string `json:"profile_id,omitempty"`
	Repeat    int    `json:"repeat,omitempty"`
	InputLen  int64  `json:"input_len"`
	OutputLen int64  `json:"output_len"`
	BatchSize int64  `json:"batch_size"`
	NumIters  int64  `json:"num_iters"`
	NumWarmup int64  `json:"num_iters_warmup"`
}

// lay puts the lengths of a profile into a request for the engine.
func (q *sessionRequest) lay(r *request) {
	r.inputLen, r.outputLen, r.batchSize = q.InputLen, q.OutputLen, q.BatchSize
	r.numIters, r.numWarmup = q.NumIters, q.NumWarmup
}

// A driverEvent is a line of the driver to the runner.
type driverEvent struct {
	name   string
	fields map[string]any
}

// A driverPipe is the driver's end of the two pipes.
type driverPipe struct {
	out      io.Writer
	requests chan *sessionRequest // closed when the runner is gone
	id       int                  // of the request at hand
}

// openPipe takes the descriptors that the runner has named. No child inherits
// them, or the runner would wait for it.
func openPipe(in, out string) (*driverPipe, error) {
	var files [2]*os.File
	for i, word := range []string{in, out} {
		fd, err := strconv.Atoi(word)
		if err != nil || fd < 3 {
			return nil, fmt.Errorf("session mode: %q is no descriptor of a pipe", word)
		}
		syscall.CloseOnExec(fd)
		files[i] = os.NewFile(uintptr(fd), "pipe "+word)
	}
	pipe := &driverPipe{out: files[1], requests: make(chan *sessionRequest)}
	go func() {
		defer close(pipe.requests)
		lines := bufio.NewScanner(files[0])
		for lines.Scan() {
			q := new(sessionRequest)
			if json.Unmarshal(lines.Bytes(), q) == nil {
				pipe.requests <- q
			}
		}
	}()
	return pipe, nil
}

// send writes one line, as the driver does.
func (d *driverPipe) send(at time.Time, e *driverEvent) error {
	_, err := d.out.Write(d.line(at, e))
	return err
}

func (d *driverPipe) line(at time.Time, e *driverEvent) []byte {
	line := map[string]any{"event": e.name, "t": float64(at.UnixMicro()) / 1e6}
	if d.id != 0 || e.name != "ready" && e.name != "failed" && e.name != "bye" {
		line["id"] = d.id
	}
	maps.Copy(line, e.fields)
	if torch, ok := e.fields["torch"].(map[string]any); ok {
		for _, rank := range torch["ranks"].([]map[string]any) {
			rank["t"] = line["t"]
		}
	}
	data, err := json.Marshal(line)
	if err != nil { // numbers and text alone: cannot happen
		return nil
	}
	return append(data, '\n')
}

// session serves one profile after another on the engine that is up, until the
// runner says quit or is gone.
func (p *player) session(ctx context.Context, others []int64) int {
	up := p.script
	if up.fail != nil {
		return p.failed(up, "failed")
	}
	ready := map[string]any{"vllm_version": p.config.Version, "torch": up.figures.torch((*rankMemory).ready)}
	if p.pipe.send(time.Now(), &driverEvent{"ready", ready}) != nil {
		return 1
	}
	for {
		select {
		case <-ctx.Done():
			return 143
		case who := <-p.died:
			return p.mourn(who)
		case q := <-p.pipe.requests:
			if q == nil || q.Op == "quit" {
				return p.quit(ctx, up)
			}
			if end, code := p.serve(ctx, up, q, others); end {
				return code
			}
		}
	}
}

// failed tells the runner what the front end has seen of a failure.
func (p *player) failed(s *script, event string) int {
	kind, text := "engine_error", s.fail.line()
	inFront := s.figures == nil || s.figures.inProcess && s.figures.ranks == 1
	switch {
	case inFront && s.fail.class == "torch.OutOfMemoryError":
		kind = "oom"
	case inFront && (slices.Contains([]string{"ValueError", "AssertionError"}, s.fail.class) ||
		strings.HasSuffix(s.fail.class, "ValidationError")):
		kind = "bad_argument"
	case !inFront && event == "error":
		kind, text = "engine_dead", engineDead
	case !inFront:
		text = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
	}
	// The runner may be gone: the exit code says it as well.
	_ = p.pipe.send(time.Now(), &driverEvent{event, map[string]any{"kind": kind, "message": text}})
	return 1
}

// quit shuts the engine down.
func (p *player) quit(ctx context.Context, up *script) int {
	p.pipe.id = 0
	_ = p.pipe.send(time.Now(), &driverEvent{name: "bye"}) // best effort: it ends either way
	b := p.builderOn(up.figures, up.request)
	b.enter(runner.PhaseTeardown)
	b.do(0, 0, 0.08)
	b.shutdown()
	_, code := p.playOn(ctx, b.finish(0, nil), p.config)
	return code
}

// builderOn writes a further script for an engine that is up.
func (p *player) builderOn(f *figures, r *request) *builder {
	return newBuilder(p.config, r, p.env, f)
}

// playOn follows a further script from now on.
func (p *player) playOn(ctx context.Context, s *script, c *Config) (end bool, code int) {
	before := p.config
	p.script, p.config, p.started, p.late = s, c, time.Now(), 0
	end, code = p.through(ctx)
	p.config = before
	return end, code
}

// serve does one profile; end means that the driver ends with it.
func (p *player) serve(ctx context.Context, up *script, q *sessionRequest, others []int64) (end bool, code int) {
	p.pipe.id = q.ID
	c, r := *p.config, *up.request
	q.lay(&r)
	if q.Profile != "" {
		c.Key, c.Repeat = q.Profile, q.Repeat
	}
	if limit := up.figures.maxLen; limit < q.InputLen+q.OutputLen {
		text := fmt.Sprintf("ValueError: input_len %d + output_len %d exceed max_model_len %d of this engine",
			q.InputLen, q.OutputLen, limit)
		return p.refuse("bad_argument", text), 1
	}
	c.active = nil
	c.chooseAmong(&r, duringProfile)
	own, err := figuresOf(&c, &r, others)
	if err != nil {
		return p.refuse("engine_error", err.Error()), 1
	}
	f := up.figures.grown(own)
	b := p.builderOn(f, &r)
	b.config = &c
	if end, code = p.playOn(ctx, b.sessionProfile(), &c); end {
		return true, code
	}
	if p.script.fail != nil {
		return true, p.failed(p.script, "error")
	}
	up.figures.memory = f.memory // what the allocator has taken stays
	return false, 0
}

// refuse answers a profile with an error; end means that the runner is gone.
func (p *player) refuse(kind, text string) (end bool) {
	return p.pipe.send(time.Now(), &driverEvent{"error", map[string]any{"kind": kind, "message": text}}) != nil
}

// grown are the figures of an engine that serves a profile: its own memory, of
// which requests take what the largest profile so far took, and the profile's
// times.
func (f *figures) grown(own *figures) *figures {
	out := *f
	out.memory = slices.Clone(f.memory)
	for i := range out.memory {
		m := &out.memory[i]
		if !m.served {
			m.requests, m.served = own.memory[i].requests, true
		}
		m.requests = max(m.requests, own.memory[i].requests)
	}
	out.times.latency, out.times.busy = own.times.latency, own.times.busy
	out.warmups, out.latencies = own.warmups, own.latencies
	return &out
}

// sessionProfile is what the driver does of `vllm bench latency` for one
// profile.
func (b *builder) sessionProfile() *script {
	f := b.figures
	b.enter(runner.PhaseBenchWarmup)
	b.tell("profile_start", map[string]any{"torch": f.torch((*rankMemory).ready)})
	if fail := b.oomWhile(runner.PhaseBenchWarmup, 0, (*rankMemory).serving); fail != nil {
		return b.failEngine(fail)
	}
	b.do(100, int32(30+50*f.times.busy), 0.35+0.55*f.times.busy)
	b.hold((*rankMemory).serving)
	b.iterations("warmup_iter", f.warmups)
	b.tell("warmed_up", map[string]any{"torch": f.torch((*rankMemory).serving)})
	b.enter(runner.PhaseMeasure)
	if fail := b.oomWhile(runner.PhaseMeasure, 0, (*rankMemory).serving); fail != nil {
		return b.failEngine(fail)
	}
	b.iterations("iter", f.latencies)
	b.do(0, 0, 0.08)
	b.tell("result", b.sessionResult())
	b.enter(runner.PhaseTeardown) // nothing of it is the profile's any more
	return b.finish(0, nil)
}

// iterations tells of each iteration when it is done.
func (b *builder) iterations(event string, took []float64) {
	b.wait(0.01)
	for i, t := range took {
		b.wait(t)
		b.tell(event, map[string]any{"n": i + 1, "latency_s": t})
	}
}

// tell sends a line to the runner.
func (b *builder) tell(event string, fields map[string]any) {
	b.add(step{event: &driverEvent{event, fields}})
}

// sessionResult is the answer to a profile.
func (b *builder) sessionResult() map[string]any {
	f, r := b.figures, b.request
	fields := map[string]any{"latencies": f.latencies, "torch": f.torch((*rankMemory).serving)}
	if avg, percentiles, ok := summary(f.latencies); ok {
		fields["avg_latency"], fields["percentiles"] = avg, percentiles
	}
	perRequest := (r.inputLen + r.outputLen + f.blockSize - 1) / f.blockSize
	running := min(r.batchSize, f.maxSeqs, max(f.blocks/max(perRequest, 1), 1))
	fields["engine"] = map[string]any{
		"kv_used_blocks_peak": min(running*perRequest, f.blocks), "num_gpu_blocks": f.blocks, "block_size": f.blockSize,
		"waiting_peak": r.batchSize - running, "running_peak": running, "preemptions": 0,
	}
	return fields
}

// torch is what torch would say on every rank that holds so much.
func (f *figures) torch(held func(*rankMemory) int64) map[string]any {
	ranks := make([]map[string]any, len(f.memory))
	for i := range f.memory {
		m := &f.memory[i]
		reserved := max(held(m)-m.context-m.nonTorch, 0)
		ranks[i] = map[string]any{
			"rank": i, "allocated_bytes": min(m.weights+m.buffers+m.kv, reserved),
			"reserved_bytes": reserved, "peak_bytes": reserved,
			"free_bytes": f.gpu.TotalBytes - m.others - held(m), "total_bytes": f.gpu.TotalBytes,
		}
	}
	return map[string]any{"ranks": ranks}
}

// say sends the line of a step, or what chaos makes of it. end means that the
// driver ends with that code.
func (p *player) say(e *driverEvent, now time.Time) (end bool, code int) {
	var err error
	switch {
	case e.name == "profile_start" && p.config.does("pipe_print", "") != nil:
		_, err = io.WriteString(p.pipe.out,
			"INFO 01-01 00:00:00 [core.py:1] simulated vLLM prints on the pipe\nWARNING and again\n")
	case e.name == "profile_start" && p.config.does("pipe_garbage", "") != nil:
		_, err = p.pipe.out.Write([]byte("\x00\xff\xfe{\"event\": 7}\n{\"event\":\"result\",\"id\":-1}\n[]\n{\"half\n"))
	case e.name != "result":
	case p.config.does("broken_result", "") != nil:
		line := p.pipe.line(now, e)
		_, _ = p.pipe.out.Write(line[:len(line)/2]) // it ends, read or not
		return true, 1
	case p.config.does("empty_result", "") != nil:
		return true, 0
	case p.config.does("no_result", "") != nil:
		e = &driverEvent{name: "result"}
	}
	if err == nil {
		err = p.pipe.send(now, e)
	}
	return err != nil, 1 // the runner is gone
}

// duringProfile reports whether a misbehaviour belongs to a profile of session
// mode and not to the engine's start.
func duringProfile(c *Chaos) bool {
	engines := strings.Fields(`ignore_sigterm silent orphans linger
		fail_hub fail_port fail_nccl fail_device fail_assertion`)
	phases := []runner.Phase{"", runner.PhaseBenchWarmup, runner.PhaseMeasure, runner.PhaseTeardown}
	return !slices.Contains(engines, c.Do) && slices.Contains(phases, runner.Phase(c.At))
}
