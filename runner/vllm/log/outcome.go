package log

import (
	"slices"
	"strings"

	"github.com/vramsweep/vramsweep/runner"
)

// OutcomeOf is the outcome of a run that failed, by the failure that its log
// tells (nil: none). retriable says that the same run may well succeed a minute later: the hub, NCCL, a port in
// use, memory that others held.
func OutcomeOf(e *runner.AccountError) (outcome runner.Outcome, retriable bool) {
	if e == nil {
		return runner.OutcomeEngineError, false
	}
	switch e.Kind {
	case KindOOM:
		return runner.OutcomeOOM, false
	case KindNoKVMemory:
		return runner.OutcomeNoKVMemory, false
	case KindKVTooSmall:
		return runner.OutcomeKVTooSmall, false
	case KindMaxModelLen, KindBadArgument, KindTPDivisibility, KindDtypeUnsupported:
		return runner.OutcomeBadArgument, false
	case KindFreeMemoryCheck, KindNCCL, KindWorkerDied:
		return runner.OutcomeEngineError, true
	case KindHub:
		return runner.OutcomeEngineError, hubMayAnswer(e.Message)
	}
	busy := portRE.MatchString(e.Message) || containsAny(e.Message, "device is busy", "busy or unavailable")
	return runner.OutcomeEngineError, busy
}

// hubMayAnswer tells a hub that does not answer now from one that said no.
func hubMayAnswer(message string) bool {
	return !containsAny(message,
		"gated", "401", "403", "404", "Repository Not Found", "not a valid model identifier", "Offline",
		"outgoing traffic has been disabled", "offline mode is enabled", "HFValidationError", "Repo id must",
		"Cannot find any model weights")
}

func containsAny(s string, texts ...string) bool {
	return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(s, text) })
}

func hasAnyPrefix(s string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(s, prefix) })
}
