// Package analyze says what the tables mean: it compares executions,
// correlates settings with figures, builds a database of model-specific
// overhead, judges memory calculators and draws a report.
//
// It reads the Parquet tables of output folders through package sinks. It
// never mixes synthetic with measured rows, and says how many runs each figure
// rests on.
package analyze
