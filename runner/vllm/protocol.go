package vllm

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/vramsweep/vramsweep/runner"
)

// A request asks the driver for one profile, or to quit.
type request struct {
	ID             int    `json:"id"`
	Op             string `json:"op"` // "profile", "quit"
	InputLen       int64  `json:"input_len,omitempty"`
	OutputLen      int64  `json:"output_len,omitempty"`
	BatchSize      int64  `json:"batch_size,omitempty"`
	NumItersWarmup int64  `json:"num_iters_warmup"`
	NumIters       int64  `json:"num_iters"`
	// Which run this is: for messages, and for the simulator's chance.
	ProfileID string `json:"profile_id,omitempty"`
	Repeat    int    `json:"repeat,omitempty"`
}

// A reply is one line of the driver. Times are its wall clock, which is ours:
// both run on one machine.
type reply struct {
	Event string  `json:"event"` // ready, failed, profile_start, warmup_iter, warmed_up, iter, result, error, bye
	T     float64 `json:"t"`     // seconds since 1970
	ID    int     `json:"id"`

	LatencyS float64 `json:"latency_s"`

	latencyFile // of a result

	Torch  *torchReply  `json:"torch"`
	Engine *engineReply `json:"engine"`

	Kind    string `json:"kind"` // of an error: oom, bad_argument, engine_dead, engine_error
	Message string `json:"message"`
}

// torchReply is what torch on every rank said.
type torchReply struct {
	Ranks []struct {
		runner.TorchReading
		T      float64 `json:"t"`
		Reason string  `json:"reason"`
	} `json:"ranks"`
	Reason string `json:"reason"`
}

// engineReply is what the engine's scheduler said while a profile ran, as far as
// it is kept.
type engineReply struct {
	KVUsedBlocksPeak *int64 `json:"kv_used_blocks_peak"`
	BlockSize        *int64 `json:"block_size"`
	WaitingPeak      *int64 `json:"waiting_peak"`
	Preemptions      *int64 `json:"preemptions"`
	Reason           string `json:"reason"`
}

// wallClock is a time of the driver's.
func wallClock(t float64) time.Time {
	if !(t > 0 && t < 4e9) { // no clock of an engine that runs today
		return time.Time{}
	}
	return time.UnixMicro(int64(t * 1e6)).UTC()
}

// readings turns a torch reply into rows; ranks where torch sees no GPU are
// left out.
func (t *torchReply) readings(moment string) []runner.TorchReading {
	if t == nil {
		return nil
	}
	var out []runner.TorchReading
	for _, rank := range t.Ranks {
		if rank.AllocatedBytes == nil && rank.FreeBytes == nil {
			continue
		}
		rank.Moment, rank.At = moment, wallClock(rank.T)
		out = append(out, rank.TorchReading)
	}
	return out
}

// reason says why torch told nothing; "" if it told something.
func (t *torchReply) reason() string {
	switch {
	case t == nil:
		return "the driver sent no reading"
	case t.Reason != "":
		return t.Reason
	}
	for _, rank := range t.Ranks {
		if rank.Reason != "" {
			return rank.Reason
		}
	}
	return ""
}

// maxReply bounds one line of the driver: 100,000 latencies fit.
const maxReply = 16 << 20

// errGarbage marks a line that the driver cannot have written. vLLM's own
// words go to standard output, so this means that something else wrote there.
var errGarbage = errors.New("not a line of the session driver")

// readReplies delivers the driver's lines until the pipe closes. A line that is
// no JSON object is delivered as an error and does not end the reading; half a
// line at the end is one too.
func readReplies(from io.Reader, deliver func(*reply, error)) {
	lines := bufio.NewReaderSize(from, 64<<10)
	for {
		line, err := readLine(lines)
		if len(line) > 0 {
			answer := new(reply)
			if jsonErr := json.Unmarshal(line, answer); jsonErr != nil || answer.Event == "" {
				deliver(nil, fmt.Errorf("%w: %.200q", errGarbage, line))
			} else {
				deliver(answer, nil)
			}
		}
		if err != nil {
			return
		}
	}
}

// readLine returns a line without its end; longer ones are cut at maxReply.
func readLine(from *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		piece, err := from.ReadSlice('\n')
		if len(line)+len(piece) <= maxReply {
			line = append(line, piece...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		for len(line) > 0 && (line[len(line)-1] == '\n' || line[len(line)-1] == '\r') {
			line = line[:len(line)-1]
		}
		return line, err
	}
}
