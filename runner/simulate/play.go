package simulate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// VLLM behaves as the `vllm` command does: args are what follows the name of
// the program, env is its whole environment, in which EnvConfig carries the
// simulator's own settings. It returns the exit code.
//
// It knows `--version` and `bench latency ...`. It takes its time as a real run
// does, holds memory of the simulated GPUs while it lives, and starts worker
// processes. It ends early when ctx does (143).
func VLLM(ctx context.Context, args []string, env []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == HoldVerb {
		return hold(ctx, args[1:], env, os.Stdin)
	}
	p := &player{env: envMap(env), environ: env, stdout: stdout, stderr: stderr}
	c, err := configFrom(env)
	if err != nil {
		return p.fault(err, 2)
	}
	p.config = &c
	prog, rest, code := findVerb(args, c.Version, stdout, stderr)
	if prog == "" {
		return code
	}
	if slices.Contains(rest, "--help") || slices.Contains(rest, "-h") {
		fmt.Fprintf(stdout, "usage: %s [options]\n\n"+
			"vramsweep simulator, behaving as vLLM %s: synthetic, no GPU is used.\n", prog, c.Version)
		return 0
	}
	r, err := parseArgs(prog, rest)
	if err != nil {
		fmt.Fprintf(stderr, "usage: %s [options]\n%v\n", prog, err)
		return 2
	}
	if err := c.resolve(r); err != nil {
		return p.fault(err, 2)
	}
	if prog == sessionProg {
		if p.pipe, err = openPipe(args[1], args[2]); err != nil {
			return p.fault(err, 2)
		}
	}
	return p.play(ctx, r)
}

// fault says what is wrong with the simulator itself.
func (p *player) fault(err error, code int) int {
	fmt.Fprintf(p.stderr, "vramsweep simulator: %v\n", err)
	return code
}

// findVerb finds what is asked for. An empty prog means that all is done, with
// that exit code.
func findVerb(args []string, version string, stdout, stderr io.Writer) (prog string, rest []string, code int) {
	switch {
	case len(args) > 3 && strings.HasSuffix(args[0], "vramsweep_driver.py"):
		return sessionProg, args[4:], 0
	case len(args) == 1 && (args[0] == "--version" || args[0] == "-v"):
		fmt.Fprintln(stdout, version)
		return "", nil, 0
	case len(args) >= 2 && args[0] == "bench" && args[1] == "latency":
		return "vllm bench latency", args[2:], 0
	case len(args) == 0 || args[0] == "--help" || args[0] == "-h":
		fmt.Fprintf(stdout, "usage: vllm [-h] [-v] {bench} ...\n\n"+
			"vramsweep simulator, behaving as vLLM %s: it knows `bench latency` alone.\n", version)
		return "", nil, 0
	case args[0] == "bench" && len(args) >= 2:
		fmt.Fprintf(stderr, "usage: vllm bench <bench_type> [options]\nvllm bench: error: argument bench_type: "+
			"invalid choice: %s (choose from 'latency'; the simulator knows no other)\n", pyString(args[1]))
	default:
		fmt.Fprintf(stderr, "usage: vllm [-h] [-v] {bench} ...\nvllm: error: argument subparser: "+
			"invalid choice: %s (choose from 'bench'; the simulator knows no other)\n", pyString(args[0]))
	}
	return "", nil, 2
}

// resolve finds the GPU and the model of a start.
func (c *Config) resolve(r *request) (err error) {
	if c.words, err = wordsOf(c.Version); err != nil {
		return err
	}
	if c.GPU == nil {
		gpu, err := FindGPU(DefaultGPU)
		if err != nil {
			return err
		}
		c.GPU = &gpu
	}
	if c.Key == "" {
		c.Key = r.key()
	}
	if len(c.Entry) > 0 {
		a, err := modelOf(c.Entry)
		if err != nil {
			return err
		}
		c.Model = a
	}
	if c.Model == nil && c.HubModel == "" { // started by hand: nobody looked the model up
		c.Model = lookUp(r.model)
	}
	if c.Start == nil {
		c.chooseChaos(r)
		return nil
	}
	starter, of := *c, *r
	c.Start.lay(&of)
	starter.Key, starter.Repeat = c.Start.Profile, c.Start.Repeat
	starter.chooseAmong(&of, func(one *Chaos) bool { return !duringProfile(one) })
	c.active = starter.active
	return nil
}

// key is the request as text, but for where the result goes.
func (r *request) key() string {
	parts := make([]string, 0, len(r.given))
	for _, g := range r.given {
		if g.name != "output-json" {
			parts = append(parts, g.name+"="+g.value)
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

// lookUp finds a model by its folder or in the catalogue; nil where neither
// knows it.
func lookUp(name string) *models.Architecture {
	if a, err := models.FromDir(name); err == nil {
		return a
	}
	catalogue, err := models.Builtin()
	if err != nil {
		return nil
	}
	a, _ := catalogue.Lookup(name)
	return a
}

// gpuCount is how many GPUs the simulated machine has.
func (c *Config) gpuCount() int {
	if c.GPUCount > 0 {
		return c.GPUCount
	}
	return max(8, slices.Max(append([]int{0}, c.GPUs...))+1)
}

// envMap is an environment as a map.
func envMap(env []string) map[string]string {
	m := map[string]string{}
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		m[name] = value
	}
	return m
}

// A player follows a script in wall time.
type player struct {
	config         *Config
	env            map[string]string
	environ        []string
	stdout, stderr io.Writer

	script   *script
	gpus     []int // by rank
	children map[int]*child
	holders  []*holder
	died     chan int // who has died
	finished chan struct{}
	started  time.Time
	late     time.Duration // added by "slow"
	pipe     *driverPipe   // session mode
	code     int
}

// play runs one start from the first line to the exit; in session mode it goes
// on when the engine is up.
func (p *player) play(ctx context.Context, r *request) int {
	ctx, others, err := p.prepare(ctx, r)
	if err != nil {
		return p.fault(err, 1)
	}
	b := newBuilder(p.config, r, p.env, nil)
	b.standBy = p.pipe != nil
	p.script = b.write(p.env, others)
	defer p.release()
	if err := p.spawn(); err != nil {
		return p.fault(err, 1)
	}
	end, code := p.through(ctx)
	if end || !b.standBy {
		return code
	}
	return p.session(ctx, others)
}

// prepare does what comes before the script, and says what others hold of the
// GPUs.
func (p *player) prepare(ctx context.Context, r *request) (context.Context, []int64, error) {
	c := p.config
	if c.does("ignore_sigterm", "") != nil {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		ctx = context.WithoutCancel(ctx)
	}
	if c.does("silent", "") != nil {
		p.stdout, p.stderr = io.Discard, io.Discard
	}
	p.gpus = p.chooseGPUs(r)
	var others []int64
	if c.StateDir != "" {
		device, err := NewDevice(c.StateDir, *c.GPU, c.gpuCount())
		if err != nil {
			return ctx, nil, err
		}
		device.guest = true
		others = device.heldByOthers(p.gpus)
	}
	fmt.Fprintf(p.stderr, "vramsweep simulator: synthetic run, behaving as vLLM %s on %s; no GPU is used\n",
		c.Version, c.GPU.Name)
	p.finished = make(chan struct{})
	p.started = time.Now()
	return ctx, others, nil
}

// chooseGPUs says on which GPU each rank runs.
func (p *player) chooseGPUs(r *request) []int {
	n := int(max(r.tp*r.pp, 1))
	visible := p.config.GPUs
	for _, name := range []string{"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"} {
		var list []int
		for word := range strings.SplitSeq(p.env[name], ",") {
			if i, err := strconv.Atoi(strings.TrimSpace(word)); err == nil {
				list = append(list, i)
			}
		}
		if list != nil && visible == nil {
			visible = list
		}
	}
	gpus := make([]int, n)
	for i := range gpus {
		gpus[i] = i
		if i < len(visible) {
			gpus[i] = visible[i]
		}
	}
	return gpus
}

// spawn starts the engine and worker processes and opens the state files of
// the ranks.
func (p *player) spawn() error {
	f := p.script.figures
	p.children, p.died = map[int]*child{}, make(chan int, 16)
	if f == nil {
		return nil
	}
	if len(p.config.Reexec) > 0 {
		for _, who := range f.processes() {
			if err := p.spawnOne(who); err != nil {
				return err
			}
		}
	}
	if p.config.StateDir == "" {
		return nil
	}
	for rank := range f.ranks {
		h, err := newHolder(p.config.StateDir, "/proc", p.pidOf(rank), p.gpus[rank], "VLLM::"+f.holderName(rank))
		if err != nil {
			return err
		}
		if linger := p.config.does("linger", ""); linger != nil {
			h.now.Linger = int64(linger.length(2 * time.Second))
		}
		p.holders = append(p.holders, h)
	}
	return nil
}

// processes are those beside the front end: who needs one.
func (f *figures) processes() []int {
	var out []int
	if !f.inProcess {
		out = append(out, engine)
	}
	for rank := range f.ranks {
		if f.ranks > 1 {
			out = append(out, rank)
		}
	}
	return out
}

// holderName is what a process calls itself in the list of the driver.
func (f *figures) holderName(rank int) string {
	if f.ranks == 1 {
		return "EngineCore"
	}
	return "Worker_" + f.rankName(rank)
}

// spawnOne starts the process of the engine or of a rank.
func (p *player) spawnOne(who int) error {
	var args []string
	if p.config.does("ignore_sigterm", "") != nil {
		args = append(args, "ignore")
	}
	if p.config.does("orphans", "") != nil {
		args = append(args, "orphan")
	}
	c, err := p.startChild(false, p.environ, args...)
	if err != nil {
		return err
	}
	p.children[who] = c
	go func() {
		<-c.dead
		select {
		case p.died <- who:
		case <-p.finished:
		}
	}()
	return nil
}

// pidOf is the id of the process that does the steps of who.
func (p *player) pidOf(who int) int {
	if c := p.children[who]; c != nil {
		return c.process.Pid
	}
	if c := p.children[engine]; c != nil && who == 0 && p.script.figures.ranks == 1 {
		return c.process.Pid
	}
	return os.Getpid()
}

// release lets the children end and gives the memory back: as in vLLM, it is
// back by the time the process has been waited for. The state files stay for
// the driver, whose energy counter must not fall.
func (p *player) release() {
	close(p.finished)
	if p.config.does("orphans", "") != nil {
		return
	}
	for _, c := range p.children {
		c.end(2 * time.Second)
	}
	if p.config.does("linger", "") != nil {
		return
	}
	now := time.Now()
	for _, h := range p.holders {
		// Best effort: without it the file is one of a dead process, which holds nothing.
		_ = h.set(now, func(s *holding) {
			s.Bytes, s.Drain, s.Power, s.Util, s.MemUtil, s.Until = 0, 0, 0, 0, 0, now.UnixNano()
		})
		_ = h.file.Close()
	}
}

// through does the steps, each at its moment. end means that the process ends
// before the last one, with that code.
func (p *player) through(ctx context.Context) (end bool, code int) {
	s := p.script
	moments := p.config.moments(s)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := range s.steps {
		for _, m := range moments {
			if m.step != i {
				continue
			}
			if end, code := p.misbehave(ctx, m.chaos); end {
				return true, code
			}
		}
		st := &s.steps[i]
		if st.stays {
			p.late += p.config.Stay
		}
		timer.Reset(time.Until(p.started.Add(s.wall(st, p.config.TimeScale) + p.late)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return true, 143
		case who := <-p.died:
			return true, p.mourn(who)
		}
		if err := p.step(st, i); err != nil {
			return true, p.fault(err, 1)
		}
		if st.event != nil {
			if end, code := p.say(st.event, time.Now()); end {
				return true, code
			}
		}
	}
	return false, p.code
}

// step does a step, the i-th of the script: memory first, then the line.
func (p *player) step(st *step, i int) error {
	now := time.Now()
	if st.memory != nil || st.doing != nil {
		until := p.started.Add(p.script.wall(p.script.nextChange(i), p.config.TimeScale) + p.late).UnixNano()
		speed := p.script.speedAt(st.phase, p.config.TimeScale)
		for rank, h := range p.holders {
			err := h.set(now, func(s *holding) {
				if bytes, ok := st.memory[rank]; ok {
					s.Bytes = bytes
				}
				if d := st.doing; d != nil {
					s.Util, s.MemUtil, s.Power, s.Clock = d.util, d.memUtil, d.power, d.clock
				}
				s.Drain = s.Power*speed - speedOf(*p.config.GPU).idle
				s.Until = until
			})
			if err != nil {
				return err
			}
		}
	}
	out := p.stdout
	if st.stderr {
		out = p.stderr
	}
	if text := p.script.render(st, now, p.pidOf); text != nil {
		if _, err := out.Write(text); err != nil { // as Python: BrokenPipeError ends it
			return fmt.Errorf("output: %w", err)
		}
	}
	if st.outcome != nil {
		p.code = st.outcome.code
		return p.writeResult(st.outcome.result)
	}
	return nil
}

// nextChange is the next step after the i-th that changes what a GPU holds or
// does, or the last one.
func (s *script) nextChange(i int) *step {
	for i++; i < len(s.steps)-1; i++ {
		if s.steps[i].memory != nil || s.steps[i].doing != nil {
			break
		}
	}
	return &s.steps[min(i, len(s.steps)-1)]
}

// speedAt is how many simulated seconds pass in a second of wall time.
func (s *script) speedAt(phase runner.Phase, timeScale float64) float64 {
	if timeScale > 0 {
		return timeScale
	}
	sp := s.phases[phase]
	if wall := s.budget(phase); wall > 0 && sp.to > sp.from {
		return (sp.to - sp.from) / wall
	}
	return 1
}

// writeResult writes the file of --output-json, or spoils it where chaos says.
func (p *player) writeResult(data []byte) error {
	path := p.script.request.outputJSON
	if path == "" || data == nil || p.config.does("no_result", "") != nil {
		return nil
	}
	switch {
	case p.config.does("empty_result", "") != nil:
		data = nil
	case p.config.does("broken_result", "") != nil:
		data = data[:len(data)/2]
	case p.config.does("fifo_result", "") != nil:
		if err := errors.Join(os.RemoveAll(filepath.Clean(path)), syscall.Mkfifo(path, 0o644)); err != nil {
			return fmt.Errorf("result file: %w", err)
		}
		return nil
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("result file: %w", err)
	}
	return nil
}

// mourn is what vLLM does when one of its processes has died.
func (p *player) mourn(who int) int {
	now := time.Now()
	b := newBuilder(p.config, p.script.request, p.env, p.script.figures)
	if who != engine {
		b.say("worker_died", "{rank}", itoa(who))
	}
	b.say("engine_died")
	for i := range b.steps { // best effort: it ends anyway
		_, _ = p.stdout.Write(p.script.render(&b.steps[i], now, p.pidOf))
	}
	if p.pipe != nil { // the driver's last word; the runner may be gone
		_ = p.pipe.send(now, &driverEvent{"error", map[string]any{"kind": "engine_dead", "message": engineDead}})
	}
	fmt.Fprintln(p.stderr, traceback(frontFrames, "vllm.v1.engine.exceptions."+engineDead))
	return 1
}

// misbehave does what chaos wants at its moment; end means that the process
// ends with that code.
func (p *player) misbehave(ctx context.Context, c *Chaos) (end bool, code int) {
	switch c.Do {
	case "hang", "hang_busy":
		if c.Do == "hang" {
			idle := &activity{power: speedOf(*p.config.GPU).idle}
			_ = p.step(&step{doing: idle}, len(p.script.steps)) // best effort: it hangs anyway
		}
		<-ctx.Done()
		return true, 143
	case "die":
		p.die(c, os.Getpid())
		return true, 1
	case "kill_worker":
		for _, who := range slices.Sorted(maps.Keys(p.children)) { // the engine, where it is a process
			p.die(c, p.children[who].process.Pid)
			break
		}
	case "exit":
		return true, max(c.Code, 1)
	case "slow":
		p.late += c.length(5 * time.Second)
	case "flood", "long_line", "garbage":
		p.flood(c)
	case "setsid", "double_fork", "foreign_process":
		p.stray(c)
	}
	return false, 0
}

// die sends a process the signal of a misbehaviour.
func (p *player) die(c *Chaos, pid int) {
	sig, err := signalNamed(c.Signal)
	process, findErr := os.FindProcess(pid)
	if err != nil || findErr != nil {
		return
	}
	if process.Signal(sig) == nil && pid == os.Getpid() {
		time.Sleep(time.Second) // the signal comes
	}
}

// flood prints much.
func (p *player) flood(c *Chaos) {
	var chunk string
	total := c.size(100 << 20)
	switch c.Do {
	case "flood":
		chunk = strings.Repeat("INFO 01-01 00:00:00 [flood.py:1] "+strings.Repeat("simulated flood ", 20)+"\n", 100)
	case "long_line":
		total = c.size(8 << 20)
		chunk = strings.Repeat("x", 1<<16)
	case "garbage":
		total = c.size(1 << 20)
		chunk = strings.Repeat("\x00\xff\xfe\x1b[31m\r\xc3\x28\x80garbage\n", 1000)
	}
	for total > 0 {
		n := min(int64(len(chunk)), total)
		if _, err := io.WriteString(p.stdout, chunk[:n]); err != nil {
			return
		}
		total -= n
	}
	_, _ = io.WriteString(p.stdout, "\n")
}

// stray starts a process that outlives this one.
func (p *player) stray(c *Chaos) {
	if len(p.config.Reexec) == 0 || p.config.StateDir == "" {
		return
	}
	env := p.environ
	args := []string{"orphan"}
	size := c.size(1 << 30)
	switch c.Do {
	case "double_fork":
		args = append(args, "fork")
	case "foreign_process": // nothing of it says that it is ours, and it ends by itself
		args = append(args, "fork", "foreign", "for="+c.length(3*time.Second).String())
		size = c.size(10 << 30)
		env = slices.DeleteFunc(slices.Clone(env), func(e string) bool { return strings.HasPrefix(e, "VRAMSWEEP_RUN=") })
	}
	if p.config.does("ignore_sigterm", "") != nil {
		args = append(args, "ignore")
	}
	args = append(args, p.config.StateDir, itoa(p.gpus[0]), strconv.FormatInt(size, 10), "stray-"+c.Do)
	if _, err := p.startChild(true, env, args...); err != nil {
		p.fault(err, 1)
	}
}
