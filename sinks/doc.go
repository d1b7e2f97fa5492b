// Package sinks keeps results: one run.json a run, Parquet tables, and a
// crash-safe journal of samples. It owns the output folder (its layout, its
// locks, its recovery) and every file format in it, and it reads back what it
// wrote. It and sinks/table, which has the form of the Parquet files, are the
// only packages that know Parquet and Arrow. It starts nothing, measures nothing
// and prints nothing.
//
// The folder:
//
//	executions/<execution>.json                plan snapshot, state, summary
//	runs/<execution>/<run>/run.json            written last, by rename: the mark of done
//	runs/<execution>/<run>/timeline.parquet    the samples of the run
//	runs/<execution>/<run>/journal.arrows,.idx the samples while the run goes on
//	runs/<execution>/<run>/attempts/N/         earlier attempts, whole
//	tables/<table>/month=YYYY-MM/*.parquet     what analysts read: one file an execution, or several merged
//
// Everything in tables/ can be made again from runs/; nothing else refers to it.
package sinks
