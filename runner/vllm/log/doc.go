// Package log reads what vLLM logs, of any version from 0.4 on, and its failures.
//
// It has three stages. line.go turns bytes into records (prefixes of every age
// and wrapper away, process and stamp kept); lines.txt and facts.go know which
// text of which version holds which figure; account.go turns the facts of one
// engine into a runner.Account, per rank, with the budget of budget.go and the
// failure of failure.go and failures.txt. docs/logs.md lists every line that is
// read.
//
// A figure that the log does not hold is nil with a reason; the reader prefers
// nil to a guess.
package log
