package vllm

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/proc"
)

// childEnv is the environment of a run's engine: the inherited one, what
// vramsweep needs, the run's GPUs, then the sweep's own variables, which have the
// last word. The masker takes the secrets in it out of what is kept.
func childEnv(base []string, job *runner.Job) ([]string, *proc.Masker) {
	env := setEnv(base, "PYTHONUNBUFFERED", "1") // or lines arrive long after they were printed
	env = visibleDevices(env, job.Devices)
	if job.Lane != nil {
		for _, e := range job.Lane.Env {
			name, value, _ := strings.Cut(e, "=")
			env = setEnv(env, name, value)
		}
	}
	if job.Sweep == nil {
		return env, proc.NewMasker(env)
	}
	for _, v := range job.Sweep.Env {
		env = setEnv(env, v.Name, v.Value)
	}
	return env, proc.NewMasker(env, job.Sweep.Secrets()...)
}

// inLane lays what a run's lane gives its engine over a program.
func inLane(spec proc.Spec, job *runner.Job) proc.Spec {
	if job.Lane != nil {
		spec.CPUs, spec.Beside = job.Lane.CPUs, job.Lane.Of
	}
	return spec
}

// visibleDevices lets the run see its own GPUs and no others, numbered as the
// driver numbers them.
func visibleDevices(env []string, devices []runner.Device) []string {
	if len(devices) == 0 {
		return env
	}
	ids := make([]string, len(devices))
	for i, d := range devices {
		ids[i] = strconv.Itoa(d.Index)
		if d.MIG && d.UUID != "" {
			ids[i] = d.UUID
		}
		if d.ComputeIndex != nil { // HIP counts in another order than the bus
			ids[i] = strconv.Itoa(*d.ComputeIndex)
		}
	}
	list := strings.Join(ids, ",")
	if devices[0].Vendor == "amd" {
		// HIP counts within what ROCR and CUDA_VISIBLE_DEVICES leave: one of the
		// three only.
		env = unsetEnv(unsetEnv(env, "ROCR_VISIBLE_DEVICES"), "CUDA_VISIBLE_DEVICES")
		return setEnv(env, "HIP_VISIBLE_DEVICES", list)
	}
	env = setEnv(env, "CUDA_DEVICE_ORDER", "PCI_BUS_ID")
	return setEnv(env, "CUDA_VISIBLE_DEVICES", list)
}

func setEnv(env []string, name, value string) []string {
	return append(unsetEnv(env, name), name+"="+value)
}

func unsetEnv(env []string, name string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(e string) bool { return strings.HasPrefix(e, name+"=") })
}

// knownEnv is what of an environment moves the figures, without secrets.
func knownEnv(env []string, masker *proc.Masker) map[string]string {
	prefixes := []string{
		"VLLM_", "CUDA_", "HIP_", "ROCR_", "ROCM_", "NCCL_", "RCCL_", "PYTORCH_", "TORCH", "HF_", "TRANSFORMERS_", "PYTHON",
		"OMP_", "NVIDIA_", "TRITON_", "VRAMSWEEP_",
	}
	all := masker.Env(env)
	for name := range all {
		known := slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		if !known && name != "LD_PRELOAD" && name != "LD_LIBRARY_PATH" && name != "VIRTUAL_ENV" {
			delete(all, name)
		}
	}
	return all
}

// leftovers are the processes that outlived an engine. found says how one was
// found, left what stands behind it for one that could not be ended.
func leftovers(exit *proc.Exit, found, left string) []runner.Process {
	var out []runner.Process
	for _, l := range exit.Leftovers {
		note := fmt.Sprintf(found, l.How)
		if l.Left {
			note += left + "could not be ended"
		} else {
			note += "; ended"
		}
		out = append(out, runner.Process{PID: l.PID, Name: l.Name, Ours: true, Note: note})
	}
	return out
}

// ending says how a program ended, for people.
func ending(exit *proc.Exit) string {
	switch {
	case exit.Code != nil:
		return "exit code " + strconv.Itoa(*exit.Code)
	case exit.Signal != "":
		return "signal " + exit.Signal
	}
	return "exit code unknown"
}

// rawLogs are the stdout and stderr of one run, whole but for secrets.
type rawLogs [2]*rawLog

func openRawLogs(dir string, masker *proc.Masker) (rawLogs, error) {
	var logs rawLogs
	for i, name := range []string{"stdout", "stderr"} {
		file, err := runner.CreateFile(filepath.Join(dir, name+".log"))
		if err != nil {
			if i > 0 {
				err = errors.Join(err, logs[0].file.Close())
			}
			return logs, fmt.Errorf("raw log: %w", err)
		}
		logs[i] = &rawLog{name: name, file: file, hash: sha256.New()}
		logs[i].masked = masker.Writer(writerFunc(logs[i].keep))
	}
	return logs, nil
}

func (logs rawLogs) close() ([]runner.RawLog, error) {
	var out []runner.RawLog
	var all error
	for _, l := range logs {
		if err := errors.Join(l.masked.Close(), l.file.Sync(), l.file.Close()); err != nil {
			all = errors.Join(all, fmt.Errorf("raw log %s: %w", l.name, err))
		}
		out = append(out, l.describe())
	}
	return out, all
}

// A rawLog keeps a stream.
type rawLog struct {
	name   string
	file   *os.File
	masked io.WriteCloser
	hash   hash.Hash
	bytes  int64
	tail   []byte
}

const tailBytes = 4 << 10 // of each log stand in run.json

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (l *rawLog) Write(b []byte) (int, error) { return l.masked.Write(b) }

// keep writes what is left of a line without its secrets.
func (l *rawLog) keep(b []byte) (int, error) {
	n, err := l.file.Write(b)
	l.hash.Write(b[:n])
	l.bytes += int64(n)
	if l.tail = append(l.tail, b[:n]...); len(l.tail) > 4*tailBytes {
		l.tail = append(l.tail[:0], l.tail[len(l.tail)-tailBytes:]...)
	}
	return n, err
}

func (l *rawLog) describe() runner.RawLog {
	if len(l.tail) > tailBytes {
		l.tail = l.tail[len(l.tail)-tailBytes:]
		for len(l.tail) > 0 && l.tail[0]&0xC0 == 0x80 {
			l.tail = l.tail[1:] // the rest of a character that was cut
		}
	}
	return runner.RawLog{
		Name: l.name, Path: l.name + ".log", Bytes: l.bytes,
		SHA256: hex.EncodeToString(l.hash.Sum(nil)), Tail: strings.ToValidUTF8(string(l.tail), "�"),
	}
}
