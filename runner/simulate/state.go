package simulate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A holding is what one process holds on one GPU: the contents of a state file,
// `PID-GPU.held`. The file has a fixed size and is written with one call; a
// reader that meets half of it sees a wrong checksum and reads again.
type holding struct {
	PID     int64
	Started uint64 // start of the process in the kernel's ticks: tells a pid used again; 0: unknown
	GPU     int64
	Bytes   int64
	Energy  float64 // J, used by this process so far
	Since   int64   // Unix ns: when this state began; Drain counts from here
	Until   int64   // Unix ns: when it was to end; a process that dies earlier uses no more than this
	Drain   float64 // W above idle that the energy counter runs with
	Power   float64 // W, of the whole GPU
	Linger  int64   // ns that the memory stays after the process ended; < 0: for good
	Util    int32
	MemUtil int32
	Clock   int32
	Foreign int32 // 1: of somebody else, for tests of dirty GPUs
	Name    [32]byte
}

const (
	holdingMagic = "VRSIM1\x00\x00"
	holdingExt   = ".held"
)

// holdingSize is the size of a state file.
func holdingSize() int { return len(holdingMagic) + binary.Size(holding{}) + 4 }

// encode writes the fixed form.
func (h *holding) encode() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(holdingMagic)
	if err := binary.Write(&b, binary.LittleEndian, h); err != nil {
		return nil, fmt.Errorf("state of a simulated GPU: %w", err)
	}
	return binary.LittleEndian.AppendUint32(b.Bytes(), crc32.ChecksumIEEE(b.Bytes())), nil
}

// errTorn is a state file that is being written, or is no state file.
var errTorn = errors.New("not a whole state of a simulated GPU")

// decodeHolding reads the fixed form.
func decodeHolding(data []byte) (*holding, error) {
	if len(data) != holdingSize() || string(data[:len(holdingMagic)]) != holdingMagic {
		return nil, errTorn
	}
	body := data[:len(data)-4]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(data[len(body):]) {
		return nil, errTorn
	}
	var h holding
	if err := binary.Read(bytes.NewReader(body[len(holdingMagic):]), binary.LittleEndian, &h); err != nil {
		return nil, errTorn
	}
	return &h, nil
}

// name is the process's name.
func (h *holding) name() string {
	name, _, _ := strings.Cut(string(h.Name[:]), "\x00")
	return name
}

// energyAt is the energy used up to a moment.
func (h *holding) energyAt(now time.Time) float64 {
	return h.Energy + h.Drain*max(now.Sub(time.Unix(0, h.Since)).Seconds(), 0)
}

// A holder writes the state file of one process on one GPU.
type holder struct {
	file *os.File
	now  holding
}

// newHolder makes the state file.
func newHolder(dir, procRoot string, pid, gpu int, name string) (*holder, error) {
	path := filepath.Join(dir, fmt.Sprintf("%d-%d%s", pid, gpu, holdingExt))
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("state of the simulated GPU %d: %w; the state directory must exist and be writable", gpu, err)
	}
	started, _ := startOf(procRoot, pid)
	h := &holder{file: file, now: holding{PID: int64(pid), Started: started, GPU: int64(gpu)}}
	copy(h.now.Name[:len(h.now.Name)-1], name)
	return h, nil
}

// set publishes a state.
func (h *holder) set(at time.Time, change func(*holding)) error {
	h.now.Energy, h.now.Since = h.now.energyAt(at), at.UnixNano()
	change(&h.now)
	data, err := h.now.encode()
	if err != nil {
		return err
	}
	if _, err := h.file.WriteAt(data, 0); err != nil {
		return fmt.Errorf("state of the simulated GPU %d: %w", h.now.GPU, err)
	}
	return nil
}

// startOf reads when a process started, in the kernel's ticks since boot, and
// whether it lives: a zombie holds nothing. Without /proc the process is asked
// with signal 0, and the start is unknown.
func startOf(procRoot string, pid int) (started uint64, alive bool) {
	data, err := os.ReadFile(filepath.Join(procRoot, strconv.Itoa(pid), "stat"))
	if err != nil {
		if _, here := os.Stat(filepath.Join(procRoot, "self")); here == nil {
			return 0, false
		}
		return 0, syscall.Kill(pid, 0) == nil
	}
	// The name is in parentheses and may hold anything.
	_, rest, ok := strings.Cut(string(data[bytes.LastIndexByte(data, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, false
	}
	started, err = strconv.ParseUint(fields[19], 10, 64)
	return started, err == nil && fields[0] != "Z" && fields[0] != "X"
}
