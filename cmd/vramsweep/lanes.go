package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/gpu/host"
)

// Ports of lanes: vLLM looks for free ones from VLLM_PORT on. Ranges lie below
// those that the kernel gives away by itself (32768), and those of two runners of
// a host are apart.
const (
	firstPort  = 10000
	portsALane = 64
	portRanges = 350
)

// place is what a lane gives an engine: CPUs near its GPUs, ports, threads and a
// folder for temporary files.
func (r *rig) place(lane, lanes int, devices []runner.Device) *runner.Lane {
	port := firstPort + portsALane*((8*os.Getpid()+lane)%portRanges)
	out := &runner.Lane{Number: lane, Of: lanes, Env: []string{"VLLM_PORT=" + strconv.Itoa(port)}}
	if tmp, err := r.temporary(lane); err == nil { // else they share the host's
		out.Env = append(out.Env, "TMPDIR="+tmp)
	}
	allowed, err := host.AllowedCPUs()
	if err != nil {
		allowed = nil // engines have all
	}
	switch {
	case len(devices) == 0:
		out.CPUs = host.Part("/sys", allowed, lane-1, lanes)
	default:
		out.CPUs = host.CPUsOf("/sys", allowed, r.neighbours(devices), devices)
	}
	if r.w.getenv("OMP_NUM_THREADS") == "" {
		threads := max(len(out.CPUs)/max(len(devices), 1), 1)
		out.Env = append(out.Env, "OMP_NUM_THREADS="+strconv.Itoa(threads))
	}
	return out
}

// neighbours are the GPUs of the machine that devices are of.
func (r *rig) neighbours(devices []runner.Device) []runner.Device {
	if r.machines != nil {
		if all := r.machines.With(devices[0]); all != nil {
			return all
		}
	}
	return r.gpus().Found()
}

// temporary is a lane's folder for temporary files. Its path is short: sockets lie in it.
func (r *rig) temporary(lane int) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if dir := r.folders[lane]; dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp(r.w.tempDir(), "vramsweep-"+r.mark+"-")
	if err == nil {
		r.folders[lane] = dir
	}
	return dir, err
}

// dropTemporary removes the folders of lanes: of this runner, or of one that was killed.
func (r *rig) dropTemporary() error {
	left, err := filepath.Glob(filepath.Join(r.w.tempDir(), "vramsweep-"+r.mark+"-*"))
	for _, dir := range left {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

func (w *world) tempDir() string {
	if dir := w.getenv("TMPDIR"); dir != "" {
		return dir
	}
	return "/tmp"
}

// turnEvery is how often a run that waits for its turn to measure looks for it.
const turnEvery = 20 * time.Millisecond

// hostTurn waits until no other runner of this user measures on this host.
func (r *rig) hostTurn(ctx context.Context) (func(), error) {
	name := fmt.Sprintf("/tmp/vramsweep-measures-%d.lock", os.Getuid())
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return func() {}, nil // it alternates with the lanes of this runner alone
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return func() { _ = file.Close() }, nil // with it the lock goes
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), file.Close())
		case <-time.After(turnEvery):
		}
	}
}

// hostCPU is the CPU time of the host.
func hostCPU() (busy, all float64) {
	busy, all, err := host.CPUTime("/proc")
	if err != nil {
		return 0, 0 // not known: the column is null
	}
	return busy, all
}
