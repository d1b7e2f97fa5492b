package log

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep/models"
)

// Accounts is what the log says of each engine in it, in the order of their
// beginnings; empty where nothing of the log is vLLM's. It may be called at any
// time; the log may go on.
func (r *Reader) Accounts() []*runner.Account {
	r.flush()
	var engines []*run
	for _, n := range r.order {
		if !n.empty() && !r.onlyServes(n) {
			engines = append(engines, n)
		}
	}
	at := func(n *run) int { return slices.Index(r.order, n.root) }
	slices.SortStableFunc(engines, func(a, b *run) int {
		return cmp.Or(cmp.Compare(at(a), at(b)), cmp.Compare(a.stage, b.stage), cmp.Compare(a.dp, b.dp))
	})
	var out []*runner.Account
	for _, n := range engines {
		a := n.account()
		if len(engines) > 1 {
			a.Label = n.label()
		}
		out = append(out, a)
	}
	return out
}

// onlyServes reports whether a run is the front end of engines that have
// accounts of their own, and nothing else.
func (r *Reader) onlyServes(n *run) bool {
	others := func(o *run) bool { return o != n && o.root == n && !o.empty() }
	return !n.engineSpoke() && len(n.failures) == 0 && n.unreadCount == 0 && slices.ContainsFunc(r.order, others)
}

// label is what tells an engine from the others of its log.
func (r *run) label() string {
	var parts []string
	if r.group != "" {
		parts = append(parts, r.group)
	}
	if r.stage != "" {
		parts = append(parts, r.stage)
	}
	if r.dp >= 0 {
		parts = append(parts, fmt.Sprintf("data-parallel rank %d", r.dp))
	}
	for _, name := range slices.Sorted(maps.Keys(r.members)) {
		if isEngine(name) || name == front && len(r.members) == 1 {
			pid, _, _ := strings.Cut(r.members[name], "@")
			parts = append(parts, strings.Replace(name, front, "API server", 1)+" pid "+pid)
		}
	}
	return strings.Join(append(parts, fmt.Sprintf("from line %d", r.first.Line)), ", ")
}

// takeOver gives an engine what the front end that it shares with others said
// of all of them.
func (r *run) takeOver() {
	if r.root == r {
		return
	}
	from := r.root
	words := [][2]**word{
		{&r.version, &from.version}, {&r.platform, &from.platform}, {&r.rocm, &from.rocm}, {&r.cuda, &from.cuda},
	}
	if r.stage == "" { // stages have models of their own
		words = append(words, [][2]**word{
			{&r.architecture, &from.architecture}, {&r.usingLen, &from.usingLen}, {&r.chunked, &from.chunked},
		}...)
		if r.args == nil {
			r.args, r.argsAt, r.argsServer = from.args, from.argsAt, from.argsServer
		}
	}
	for _, w := range words {
		if *w[0] == nil {
			*w[0] = *w[1]
		}
	}
}

// up reports whether the engine takes requests.
func (r *run) up() bool { return r.ready || r.root.server }

// Last is the account of the last engine in the log, nil where there is none.
func (r *Reader) Last() *runner.Account {
	if all := r.Accounts(); len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

// flush gives up on a line that was held because its end may have been wrapped.
func (r *Reader) flush() {
	if w := r.wrap; w.left > 0 {
		r.wrap = wrapped{}
		r.settle(&w)
	}
}

func (r *run) empty() bool {
	return r.known == 0 && len(r.failures) == 0 && r.envelopes == 0 && r.unreadCount == 0
}

// A builder fills an Account and notes for each field where it comes from.
type builder struct {
	r     *run
	a     *runner.Account
	given []bool // of each rank: its KV size was given, and is no part of a budget
}

func (r *run) account() *runner.Account {
	r.takeOver()
	b := &builder{r: r, a: &runner.Account{
		Ranks: []runner.AccountRank{}, Budget: []runner.RankBudget{},
		Sources: map[string]runner.AccountSource{}, Derived: map[string]string{}, Missing: map[string]string{},
		UnreadLines: r.unreadLines, UnreadCount: r.unreadCount,
	}}
	b.identity()
	b.config()
	views := r.rankViews()
	b.ranks(views)
	b.totals(views)
	b.kv(views)
	b.lengths()
	b.utilization(views)
	b.timing()
	b.graphs()
	b.mixed()
	b.a.NoHigherShare = r.noHigherShare()
	b.a.Error = r.accountError(b.a)
	b.missing()
	return b.a
}

// put fills a field that nothing has filled yet.
func put[T any](b *builder, field string, dst **T, v T, src runner.AccountSource, how string) {
	if *dst != nil {
		return
	}
	*dst = &v
	b.a.Sources[field] = src
	if how != "" {
		b.a.Derived[field] = how
	}
}

func (b *builder) text(field string, dst **string, w *word) {
	if w != nil {
		put(b, field, dst, w.val, w.src, "")
	}
}

func (b *builder) count(field string, dst **int64, w *word, how string) {
	if w == nil {
		return
	}
	if n, err := strconv.ParseInt(w.val, 10, 64); err == nil {
		put(b, field, dst, n, w.src, how)
	}
}

func (b *builder) whole(field string, dst **int64, f *figure) {
	if f != nil && f.val < math.MaxInt64/2 {
		put(b, field, dst, int64(f.val), f.src, "")
	}
}

func (b *builder) seconds(field string, dst **float64, w *word) {
	if w == nil {
		return
	}
	if v, _, ok := number(w.val); ok {
		put(b, field, dst, v, w.src, "")
	}
}

// set stores a cell under its field's name.
func (b *builder) set(field string, dst **float64, c cell) {
	if !c.known() {
		if c.why != "" {
			b.a.Missing[field] = c.why
		}
		return
	}
	*dst = c.val
	b.a.Sources[field] = c.src
	if c.derived != "" {
		b.a.Derived[field] = c.derived
	}
}

// identity is which vLLM this is.
func (b *builder) identity() {
	r, a := b.r, b.a
	b.text("vllm_version", &a.VLLMVersion, r.version)
	b.text("engine", &a.Engine, r.engine)
	if kind, src, how := r.inferredEngine(); kind != "" {
		put(b, "engine", &a.Engine, kind, src, how)
	}
	b.text("model_runner", &a.ModelRunner, r.modelRunner)
	if r.runnerFile != nil && r.isV1() {
		how := "from the module that speaks: " + r.runnerFile.val
		kind := "v1"
		if r.runnerFile.val == "model_runner.py" {
			kind = "v2"
		}
		put(b, "model_runner", &a.ModelRunner, kind, r.runnerFile.src, how)
	}
	if r.isV1() && r.version != nil && before(r.version.val, 0, 12) {
		put(b, "model_runner", &a.ModelRunner, "v1", r.version.src, "the only one before vLLM 0.12")
	}
	b.text("platform", &a.Platform, r.platform)
	b.platform()
	b.text("architecture", &a.Architecture, r.architecture)
	b.text("attention_backend", &a.AttentionBackend, r.backend)
}

// platform tells the platform where no line names it.
func (b *builder) platform() {
	r, a := b.r, b.a
	device := r.banner["device_config"]
	switch {
	case r.rocm != nil:
		put(b, "platform", &a.Platform, "rocm", r.rocm.src, "from the module that speaks")
	case r.backend != nil && strings.Contains(strings.ToUpper(r.backend.val), "ROCM"):
		put(b, "platform", &a.Platform, "rocm", r.backend.src, "from the attention backend")
	case r.device != nil:
		put(b, "platform", &a.Platform, r.device.val, r.device.src, "from the module or the words of the line")
	case r.deviceName != nil:
		put(b, "platform", &a.Platform, r.deviceName.val, r.deviceName.src, "from the name of the device")
	case r.cuda != nil && (device == "" || device == "cuda"):
		put(b, "platform", &a.Platform, "cuda", r.cuda.src, "from the module that speaks")
	case r.allocator() != nil:
		w := r.allocator()
		put(b, "platform", &a.Platform, w.val, w.src, "from the allocator that ran out of memory")
	case device == "cuda":
		a.Missing["platform"] = "the banner says cuda, which it says on ROCm too, and no line tells them apart"
	case device == "cpu" || device == "tpu" || device == "xpu" || device == "hpu" || device == "neuron":
		put(b, "platform", &a.Platform, device, r.bannerAt, "device_config of the banner")
	}
}

// allocatorRE has a group for each platform whose allocator is known by its words.
var allocatorRE = regexp.MustCompile(`\b(?:(?P<cuda>CUDA out of memory)|(?P<rocm>HIP out of memory)|` +
	`(?P<npu>NPU out of memory|NPU function error|ACL_ERROR\w+)|(?P<xpu>XPU out of memory|UR_RESULT_ERROR\w+)|` +
	`(?P<tpu>RESOURCE_EXHAUSTED)|(?P<hpu>PT_DEVMEM))`)

// allocator is the platform whose allocator says that memory ran out.
func (r *run) allocator() *word {
	for i := range r.failures {
		m := allocatorRE.FindStringSubmatch(r.failures[i].text)
		for n := 1; n < len(m); n++ {
			if m[n] != "" {
				return &word{val: allocatorRE.SubexpNames()[n], src: r.failures[i].src}
			}
		}
	}
	return nil
}

func (r *run) isV1() bool {
	kind, _, _ := r.inferredEngine()
	return r.engine != nil && r.engine.val == "V1" || r.engine == nil && kind == "V1"
}

// runnerIs reports whether the log tells that the model runner is kind.
func (r *run) runnerIs(kind string) bool {
	if r.modelRunner != nil {
		return r.modelRunner.val == kind
	}
	ownFile := r.runnerFile != nil && r.runnerFile.val != "model_runner.py"
	return kind == "v1" && r.isV1() && (ownFile || r.version != nil && before(r.version.val, 0, 12))
}

// inferredEngine tells V0 from V1 by lines that only one of them prints.
func (r *run) inferredEngine() (kind string, src runner.AccountSource, how string) {
	switch {
	case r.v0Blocks != nil:
		return "V0", r.v0Blocks.src, "only V0 prints CPU blocks beside the device's"
	case r.tokens != nil:
		return "V1", r.tokens.src, "only V1 prints the KV cache in tokens"
	case r.failKV != nil:
		return "V1", r.failKV.src, "only V1 words this error so"
	}
	for _, key := range r.names {
		s := r.senders[key]
		for _, f := range []rankFact{fV0KV, fV064KV} {
			if l := s.facts[f]; len(l) > 0 {
				return "V0", l[0].src, "only V0 prints this line"
			}
		}
		if l := s.facts[fAvailableKV]; len(l) > 0 {
			return "V1", l[0].src, "only V1 prints this line"
		}
		if hasAnyPrefix(s.proc.name, "EngineCore", "Worker_") {
			return "V1", runner.AccountSource{}, "the name of the process, " + s.proc.name + ", which only V1 has"
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.members)) {
		if hasAnyPrefix(name, "EngineCore", "Worker_") {
			return "V1", runner.AccountSource{}, "the name of the process, " + name + ", which only V1 has"
		}
	}
	if r.v1File != nil {
		return "V1", r.v1File.src, "from the module that speaks: " + r.v1File.val
	}
	return "", src, ""
}

// config is what the engine's banner says.
func (b *builder) config() {
	r, a := b.r, b.a
	for field, dst := range map[string]**string{
		"model": &a.Model, "dtype": &a.Dtype, "kv_cache_dtype": &a.KVCacheDtype,
		"quantization": &a.Quantization, "load_format": &a.LoadFormat,
	} {
		if v := r.banner[field]; v != "" {
			put(b, field, dst, tidy(field, v), r.bannerAt, "")
		} else if v := r.args[field]; v != "" && r.banner == nil {
			a.Missing[field] = "no engine said what it used; asked for: " + cut(v, 120)
		}
	}
	b.text("kv_cache_dtype", &a.KVCacheDtype, r.kvDtype)
	b.count("tensor_parallel_size", &a.TensorParallelSize, r.said("tensor_parallel_size"), "")
	b.count("pipeline_parallel_size", &a.PipelineParallelSize, r.said("pipeline_parallel_size"), "")
	if r.banner != nil && a.Quantization == nil {
		a.Missing["quantization"] = "the engine uses none"
	}
}

// tidy takes from a banner's value what Python puts around it:
// torch.bfloat16, <class 'jax.numpy.bfloat16'>, LoadFormat.AUTO.
func tidy(key, v string) string {
	if key == "model" {
		return v
	}
	v = strings.TrimSuffix(strings.TrimPrefix(v, "<class '"), "'>")
	if key == "dtype" || key == "load_format" {
		v = v[strings.LastIndexByte(v, '.')+1:]
	}
	if key == "load_format" {
		v = strings.ToLower(v)
	}
	return v
}

// A rankFigure is a figure that each rank has. best says which of the ranks'
// stands for all: nil where none does.
type rankFigure struct {
	field string
	of    func(*rankView) cell
	best  func(a, b float64) bool
}

// rankFigures are the figures of a rank but for its graph estimate: of weights,
// activations, non-torch and graphs the largest, of free memory and the budget
// the smallest is the account's own.
func rankFigures() []rankFigure {
	return []rankFigure{
		{"model_weights_gb", (*rankView).weights, larger}, {"load_seconds", (*rankView).loadSeconds, larger},
		{"activations_gb", (*rankView).activation, larger}, {"non_torch_gb", (*rankView).nonTorch, larger},
		{"graph_capture_gb", (*rankView).graphs, larger}, {"requested_memory_gb", (*rankView).requested, smaller},
		{"total_gpu_memory_gb", (*rankView).total, smaller}, {"free_memory_gb", (*rankView).free, smaller},
		{"available_kv_cache_gb", (*rankView).kv, nil}, {"consumed_gb", (*rankView).consumed, nil},
	}
}

// figureOf is the field of an account or a rank that has a name in JSON.
func figureOf(of any, name string) **float64 {
	v := reflect.ValueOf(of).Elem()
	for i := range v.NumField() {
		if jsonName(v.Type().Field(i)) == name {
			dst, _ := v.Field(i).Addr().Interface().(**float64)
			return dst
		}
	}
	return nil
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// ranks fills one object a rank and its budget.
func (b *builder) ranks(views []*rankView) {
	for n, v := range views {
		k := runner.AccountRank{Rank: v.rank}
		if v.pid != 0 {
			pid := v.pid
			k.PID = &pid
		}
		name := fmt.Sprintf("ranks[%d].", n)
		for _, f := range rankFigures() {
			b.set(name+f.field, figureOf(&k, f.field), f.of(v))
		}
		est, none := v.estimate()
		if none {
			est.why = "none: " + est.why
		}
		b.set(name+"graph_estimate_gb", &k.GraphEstimateGB, est)
		b.a.Ranks = append(b.a.Ranks, k)
		b.given = append(b.given, len(v.facts[fGivenKV])+len(v.facts[fCPUKV]) > 0)
		b.a.Budget = append(b.a.Budget, b.r.budget(v))
	}
}

// noHigherShare says why a larger share of the GPU is no advice.
func (r *run) noHigherShare() string {
	switch {
	case r.unified != nil:
		return "the GPU (" + r.unified.val + ") shares its memory with the host, which needs a part of it"
	case r.mmSkipped != nil || r.args["skip_mm_profiling"] == "True":
		return "the memory of multimodal input was not profiled, so what is left is not known"
	}
	return ""
}

// mixed takes back a KV cache that is larger than the budget that it is the
// rest of: figures of two engines that the log does not tell apart.
func (b *builder) mixed() {
	for i := range b.a.Ranks {
		k := &b.a.Ranks[i]
		v := k.AvailableKVCacheGB
		if v == nil || k.RequestedMemoryGB == nil || *v <= *k.RequestedMemoryGB+0.01 || b.given[i] {
			continue
		}
		why := fmt.Sprintf("%.2f GiB of KV cache are more than the %.2f GiB requested, of which they are a part: "+
			"the log mixes figures of several engines", *v, *k.RequestedMemoryGB)
		name := fmt.Sprintf("ranks[%d].available_kv_cache_gb", i)
		b.halfRead(b.a.Sources[name])
		k.AvailableKVCacheGB, b.a.AvailableKVCacheGB, b.a.TotalGPUKVCacheGB = nil, nil, nil
		for _, field := range []string{name, "available_kv_cache_gb", "total_gpu_kv_cache_gb"} {
			b.a.Missing[field] = why
			delete(b.a.Sources, field)
			delete(b.a.Derived, field)
		}
		b.a.Budget[i] = runner.RankBudget{Rank: k.Rank, Note: why}
	}
}

// halfRead counts a line of which a part was not understood.
func (b *builder) halfRead(src runner.AccountSource) {
	b.a.UnreadCount++
	b.a.UnreadLines = append(slices.Clone(b.a.UnreadLines), src)
}

// pick is the extreme of a figure over the ranks. Ranks of one stage of a
// pipeline are alike and often only the first speaks; the stages are not.
func pick(views []*rankView, of func(*rankView) cell, less func(a, b float64) bool) cell {
	best := pickOfSome(views, of, less)
	if best.known() && views[0].run.lacksStages(views, of) {
		return unknown("only some stages of the pipeline printed it")
	}
	return best
}

// pickOfSome is the extreme over the ranks that have the figure.
func pickOfSome(views []*rankView, of func(*rankView) cell, less func(a, b float64) bool) cell {
	var best cell
	for _, v := range views {
		c := of(v)
		switch {
		case c.known() && (!best.known() || less(*c.val, *best.val)):
			best = c
		case !c.known() && !best.known() && best.why == "":
			best.why = c.why
		}
	}
	return best
}

// lacksStages reports whether a stage of the pipeline has not printed a figure
// that others have.
func (r *run) lacksStages(views []*rankView, of func(*rankView) cell) bool {
	tp, stages := r.tensorSize(), r.stages()
	if stages > 1 && r.config("pipeline_parallel_size") == "" {
		return true // how many there are is not in the log
	}
	spoke := map[int]bool{}
	for _, v := range views {
		if of(v).known() {
			spoke[max(v.rank, 0)/tp%stages] = true
		}
	}
	return len(spoke) < stages
}

// pickOfAll is the extreme of a figure that differs from GPU to GPU: not known
// where a rank has not printed it.
func pickOfAll(views []*rankView, of func(*rankView) cell, less func(a, b float64) bool) cell {
	if slices.ContainsFunc(views, func(v *rankView) bool { return !of(v).known() }) && len(views) > 1 {
		return unknown("only some ranks printed it")
	}
	return pick(views, of, less)
}

func smaller(a, b float64) bool { return a < b }
func larger(a, b float64) bool  { return a > b }

// stages is the number of the pipeline's stages, as far as the log shows them.
func (r *run) stages() int {
	n := max(1, atoi(r.config("pipeline_parallel_size")))
	for _, s := range r.senders {
		if s.proc.pp >= 0 { // a name has it only where there are several
			n = max(n, 2, min(s.proc.pp, maxSenders)+1)
		}
	}
	return n
}

// totals are the account's own figures, per GPU.
func (b *builder) totals(views []*rankView) {
	for _, f := range rankFigures() {
		if f.best == nil {
			continue
		}
		extreme := pick
		switch f.field {
		case "load_seconds":
			if extreme = pickOfSome; b.r.eachRankLoads() {
				extreme = pickOfAll
			}
		case "free_memory_gb":
			extreme = pickOfAll
		}
		b.set(f.field, figureOf(b.a, f.field), extreme(views, f.of, f.best))
	}
	estimate := func(v *rankView) cell { c, _ := v.estimate(); return c }
	b.set("graph_estimate_gb", &b.a.GraphEstimateGB, pick(views, estimate, larger))
	b.set("total_allocated_gb", &b.a.TotalAllocatedGB, pick(views, (*rankView).allocated, larger))
}

// eachRankLoads reports whether this version prints the loading of every rank: the
// V1 runner does so once a node from 0.11.1 on.
func (r *run) eachRankLoads() bool {
	return r.version != nil && models.Older(r.version.val, 0, 11, 1) || r.runnerIs("v2")
}

// allocated is the sum of what one rank holds by vLLM's own account.
func (v *rankView) allocated() cell {
	cons, act, graphs, kv := v.budgetConsumed(), v.activation(), v.graphs(), v.kvInUse()
	if !graphs.known() && v.run.eager() {
		graphs = none()
	}
	sum := 0.0
	for _, c := range []cell{cons, act, graphs, kv} {
		if !c.known() {
			return unknown("a part of the sum is not in the log: weights, non-torch, activations, graphs and KV")
		}
		sum += *c.val
	}
	return derive(sum, cons.half+act.half+graphs.half+kv.half, kv.src,
		"weights + non-torch + activations + graphs + KV of the rank where that is most")
}

// kv is the KV cache: bytes, tokens, blocks.
func (b *builder) kv(views []*rankView) {
	a, r := b.a, b.r
	explicit := pickOfSome(views, func(v *rankView) cell {
		return v.cell("", fAvailableKV, fGivenKV, fV0KV, fV064KV, fCPUKV)
	}, smaller)
	if !explicit.known() && r.stages() == 1 { // each stage takes as many blocks as the smallest has room for
		explicit = pick(views, (*rankView).kv, smaller)
	}
	if !explicit.known() && r.failKV != nil {
		explicit = read(*r.failKV)
	}
	b.set("available_kv_cache_gb", &a.AvailableKVCacheGB, explicit)
	if r.failKV == nil && (r.tokens != nil || r.blocks != nil || r.cpuBlocks != nil || r.up()) {
		b.set("total_gpu_kv_cache_gb", &a.TotalGPUKVCacheGB, pick(views, (*rankView).kvInUse, smaller))
	}
	b.whole("total_gpu_kv_cache_tokens", &a.TotalGPUKVCacheTokens, r.tokens)
	b.whole("num_gpu_blocks", &a.NumGPUBlocks, r.blocks)
	b.count("num_gpu_blocks", &a.NumGPUBlocks, r.overrideBlocks, "")
	b.whole("num_cpu_blocks", &a.NumCPUBlocks, r.cpuBlocks)
	b.count("block_size", &a.BlockSize, r.blockSize, "")
	if v := r.args["block_size"]; v != "" {
		a.Missing["block_size"] = "asked for " + cut(v, 40) + "; no line says what the engine used"
	}
	if r.concurrency != nil {
		b.set("max_concurrency", &a.MaxConcurrency, read(*r.concurrency))
	}
	if r.externalWeights != nil {
		b.set("external_weights_gb", &a.ExternalWeightsGB, read(*r.externalWeights))
	}
	if r.hostKV != nil {
		b.set("host_kv_cache_gb", &a.HostKVCacheGB, read(*r.hostKV))
	}
	b.deriveTokens()
}

// deriveTokens works out tokens from blocks, or blocks from tokens, where the
// log names the block size and all layers have the same.
func (b *builder) deriveTokens() {
	a := b.a
	if a.BlockSize == nil || *a.BlockSize <= 0 || b.r.hybrid != nil {
		return
	}
	switch {
	case a.TotalGPUKVCacheTokens == nil && a.NumGPUBlocks != nil && *a.NumGPUBlocks < 1<<40:
		put(b, "total_gpu_kv_cache_tokens", &a.TotalGPUKVCacheTokens, *a.NumGPUBlocks**a.BlockSize,
			a.Sources["num_gpu_blocks"], "num_gpu_blocks x block_size")
	case a.NumGPUBlocks == nil && a.TotalGPUKVCacheTokens != nil && *a.TotalGPUKVCacheTokens%*a.BlockSize == 0:
		put(b, "num_gpu_blocks", &a.NumGPUBlocks, *a.TotalGPUKVCacheTokens / *a.BlockSize,
			a.Sources["total_gpu_kv_cache_tokens"], "total_gpu_kv_cache_tokens / block_size")
	}
}

// lengths are the limits in force. The engine's last word on max_model_len is
// the KV line; before it stand the front end's and the banner's.
func (b *builder) lengths() {
	a, r := b.a, b.r
	for _, w := range []*word{r.fitLen, r.kvLen, r.usingLen, r.failLen, r.said("max_seq_len")} {
		b.count("max_model_len", &a.MaxModelLen, w, "")
	}
	b.count("max_num_batched_tokens", &a.MaxNumBatchedTokens, r.chunked, "")
	for field, dst := range map[string]**int64{
		"max_model_len": &a.MaxModelLen, "max_num_batched_tokens": &a.MaxNumBatchedTokens, "max_num_seqs": &a.MaxNumSeqs,
	} {
		if v := r.args[field]; v != "" {
			b.count(field, dst, &word{val: v, src: r.argsAt}, "as asked; no line says what the engine used")
		}
	}
}

// utilization is gpu_memory_utilization: as asked, to the last digit, where
// the engine's own rounded figure agrees; else the engine's.
func (b *builder) utilization(views []*rankView) {
	a, r := b.a, b.r
	const field = "gpu_memory_utilization"
	said := pick(views, func(v *rankView) cell {
		return v.cell("", fUseUtil, fRequestedUtil, fNoticeAsked, fV0Util, fV064Util, fFailUtil)
	}, larger)
	asked, _, ok := number(r.args[field])
	exact := cell{val: &asked, src: r.argsAt}
	switch {
	case said.known() && ok && math.Abs(asked-*said.val) <= said.half+1e-9:
		b.set(field, &a.GPUMemoryUtilization, exact)
	case said.known():
		b.set(field, &a.GPUMemoryUtilization, said)
	case !ok:
		a.Missing[field] = "neither asked nor printed; vLLM's default is 0.9 up to 0.19.1 and 0.92 from 0.20"
	case asked <= 0 || asked > 1:
		a.Missing[field] = "asked for " + r.args[field] + ", which vLLM refuses"
	case r.banner == nil || r.up() || r.tokens != nil || r.confirms(views, asked) || r.argsServer:
		b.set(field, &a.GPUMemoryUtilization, exact)
	default:
		a.Missing[field] = "asked for " + r.args[field] + "; the engine failed before it said what it used"
	}
}

// confirms reports whether requested and total memory agree with a share.
func (r *run) confirms(views []*rankView, share float64) bool {
	for _, v := range views {
		q, t := v.requested(), v.total()
		if q.known() && t.known() && *t.val > 0 && math.Abs(*q.val-share**t.val) <= q.half+t.half {
			return true
		}
	}
	return false
}

func (b *builder) timing() {
	a, r := b.a, b.r
	b.seconds("init_engine_seconds", &a.InitEngineSeconds, r.initSeconds)
	b.seconds("compile_seconds", &a.CompileSeconds, r.initCompile)
	told := r.world() <= 1 || r.initSeconds != nil || r.cause() != nil || r.up()
	if a.CompileSeconds == nil && told { // every rank has compiled
		for _, key := range r.names {
			if s := r.senders[key]; s.compile > 0 && (a.CompileSeconds == nil || s.compile > *a.CompileSeconds) {
				v := round4(s.compile)
				a.CompileSeconds = &v
				a.Sources["compile_seconds"] = s.compileAt
			}
		}
	}
	switch {
	case r.compileCold != nil:
		put(b, "compile_cache", &a.CompileCache, "cold", r.compileCold.src, "a graph was compiled")
	case r.compileWarm != nil:
		put(b, "compile_cache", &a.CompileCache, "warm", r.compileWarm.src, "every graph came from the cache")
	case r.compileOff != nil:
		put(b, "compile_cache", &a.CompileCache, "off", r.compileOff.src, "nothing is compiled, or nothing kept")
	}
}

func (b *builder) graphs() {
	a, r := b.a, b.r
	set := func(on bool, src runner.AccountSource, how string) {
		put(b, "cuda_graphs_enabled", &a.CUDAGraphsEnabled, on, src, how)
	}
	compilation := r.banner["compilation_config"]
	switch {
	case r.graphsOff != nil:
		set(false, r.graphsOff.src, "the engine says so")
	case r.captured != nil:
		set(true, r.captured.src, "graphs were captured")
	case r.banner["enforce_eager"] == "True":
		set(false, r.bannerAt, "enforce_eager of the banner")
	case strings.Contains(compilation, "CUDAGraphMode.NONE") || strings.Contains(compilation, `"cudagraph_mode":0`):
		set(false, r.bannerAt, "cudagraph_mode of the banner")
	}
}

// missing gives every field that is null a reason.
func (b *builder) missing() {
	a := b.a
	v := reflect.ValueOf(a).Elem()
	for i := range v.NumField() {
		name := jsonName(v.Type().Field(i))
		optional := strings.HasSuffix(v.Type().Field(i).Tag.Get("json"), ",omitempty")
		if v.Field(i).Kind() != reflect.Pointer || name == "error" || optional {
			continue
		}
		if !v.Field(i).IsNil() {
			delete(a.Missing, name)
		} else if a.Missing[name] == "" {
			a.Missing[name] = b.r.reason(name)
		}
	}
	for n := range a.Ranks {
		k := reflect.ValueOf(&a.Ranks[n]).Elem()
		for i := range k.NumField() {
			key := fmt.Sprintf("ranks[%d].%s", n, jsonName(k.Type().Field(i)))
			if k.Field(i).Kind() == reflect.Pointer && k.Field(i).IsNil() && a.Missing[key] == "" {
				a.Missing[key] = "this rank did not print it"
			}
		}
	}
}

// reason says why the log does not hold a field.
func (r *run) reason(field string) string {
	why := ""
	switch field {
	case "activations_gb", "non_torch_gb", "requested_memory_gb", "total_gpu_memory_gb", "free_memory_gb":
		why = r.reasonProfile(field)
	case "model_weights_gb", "load_seconds":
		if r.onCPU() {
			why = "vLLM does not print it on a CPU"
		}
	case "num_gpu_blocks", "num_cpu_blocks":
		if r.isV1() {
			why = "the V1 engine prints no blocks at this level; the KV cache is given in tokens"
		}
	case "total_gpu_kv_cache_tokens":
		if r.blocks != nil {
			why = "the log gives blocks and not their size"
		}
	case "graph_capture_gb":
		why = r.reasonGraphs()
	case "model_runner":
		if r.saysV0() {
			why = "the V0 engine has only its own"
		}
	case "block_size":
		why = "the log does not name it"
	case "vllm_version", "engine", "tensor_parallel_size", "pipeline_parallel_size":
		why = "no engine printed its banner in this log"
	case "max_num_seqs":
		why = "vLLM prints it only where it was asked for"
	}
	switch {
	case why != "":
		return why
	case r.cause() != nil:
		return "the run failed before vLLM printed it, or vLLM does not print it"
	}
	return "no line of this log holds it"
}

func (r *run) onCPU() bool { return r.banner["device_config"] == "cpu" }

func (r *run) saysV0() bool { return r.engine != nil && r.engine.val == "V0" }

// reasonProfile is about the figures of the memory profile.
func (r *run) reasonProfile(field string) string {
	switch {
	case r.cause() != nil:
		return "the run failed before vLLM printed it"
	case r.onCPU():
		return "vLLM does not print it on a CPU"
	case r.isV1() && r.version != nil && before(r.version.val, 0, 26):
		return "vLLM " + r.version.val + " prints it only at VLLM_LOGGING_LEVEL=DEBUG"
	case r.saysV0() && field != "free_memory_gb":
		return "the V0 engine prints it from 0.6.4 on"
	case field == "non_torch_gb" && r.version != nil && !before(r.version.val, 0, 27):
		return "vLLM prints it together with the weights from 0.27 on (consumed_gb)"
	}
	return ""
}

func (r *run) reasonGraphs() string {
	switch {
	case r.eager():
		return "no CUDA graphs were captured"
	case r.captured != nil && r.saysV0():
		return "vLLM prints the size of the graphs from 0.6.4 on"
	}
	return ""
}
