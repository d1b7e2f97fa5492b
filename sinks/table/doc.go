// Package table is the form of the Parquet files: schemas from row structs, a
// writer that groups rows by run, a reader that skips what a filter rules out,
// and the columns of free axes. It knows neither the output folder nor what the
// rows mean; sinks does. Pages, encodings and footers are parquet-go's.
package table
