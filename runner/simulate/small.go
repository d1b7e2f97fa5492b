package simulate

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/vramsweep/vramsweep/runner"
)

// sortedKeys are the keys of a map in order.
func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}

// phases are those that a simulated process goes through, in order.
func phases() []runner.Phase {
	return []runner.Phase{
		runner.PhaseEngineInit, runner.PhaseLoad, runner.PhaseProfile, runner.PhaseKVAlloc,
		runner.PhaseCapture, runner.PhaseEngineWarmup, runner.PhaseBenchWarmup,
		runner.PhaseMeasure, runner.PhaseTeardown,
	}
}

// signalNamed finds a signal by its name; "" is SIGKILL.
func signalNamed(name string) (os.Signal, error) {
	known := map[string]syscall.Signal{
		"": syscall.SIGKILL, "SIGKILL": syscall.SIGKILL, "SIGTERM": syscall.SIGTERM, "SIGSEGV": syscall.SIGSEGV,
		"SIGABRT": syscall.SIGABRT, "SIGINT": syscall.SIGINT, "SIGHUP": syscall.SIGHUP, "SIGBUS": syscall.SIGBUS,
	}
	s, ok := known[name]
	if !ok {
		return nil, fmt.Errorf("signal %q is unknown; expected one of %s", name, strings.Join(sortedKeys(known)[1:], ", "))
	}
	return s, nil
}

// randomFor makes the source of all chance in one run. What is drawn for one
// purpose must not move what is drawn for another, so each has its own.
func randomFor(seed int64, key string, repeat int, purpose string) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s\x00%d\x00%s", key, repeat, purpose)
	return rand.New(rand.NewPCG(uint64(seed), h.Sum64()))
}

// matches reports whether settings fulfil a `when`: each name must be there and
// equal its value or one of its list.
func matches(when map[string]any, settings map[string]string) bool {
	for name, want := range when {
		have, ok := settings[name]
		if !ok {
			return false
		}
		list, isList := want.([]any)
		if !isList {
			list = []any{want}
		}
		if !slices.ContainsFunc(list, func(w any) bool { return scalarText(w) == have }) {
			return false
		}
	}
	return true
}

// scalarText writes a value of a `when` as settings are written.
func scalarText(v any) string {
	if f, ok := v.(float64); ok { // without needless digits: 8, 0.92
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}
