module github.com/vramsweep/vramsweep

go 1.26.0

require (
	github.com/apache/arrow/go/v17 v17.0.0 // the crash-safe journal of samples (Arrow IPC), and export as Arrow
	github.com/ebitengine/purego v0.11.3 // loads NVML at run time without cgo
	github.com/google/go-cmp v0.7.0 // readable differences in tests
	github.com/google/jsonschema-go v0.4.3 // the JSON Schemas of run.json and models.json, in tests
	github.com/hashicorp/hcl/v2 v2.25.0 // the language of sweep files
	github.com/klauspost/compress v1.20.3 // logs that were kept with gzip or zstd
	github.com/parquet-go/parquet-go v0.32.0 // the tables
	github.com/rivo/uniseg v0.4.7 // columns of a diagnostic where a line has wide characters
	github.com/rogpeppe/go-internal v1.16.0 // testscript, txtar, and the differences that fmt --diff shows
	github.com/schollz/progressbar/v3 v3.19.1 // the progress bar
	github.com/spf13/cobra v1.10.2 // verbs, flags before and after operands, help
	github.com/zclconf/go-cty v1.20.0 // the values of HCL
	golang.org/x/sys v0.49.0 // process groups, locks, pread, statfs, the width of a terminal
	gonum.org/v1/gonum v0.17.0 // statistics
	gonum.org/v1/plot v0.17.0 // canvases and fonts of the plot of a run
)

require (
	codeberg.org/go-fonts/liberation v0.5.0 // indirect
	codeberg.org/go-latex/latex v0.2.0 // indirect
	git.sr.ht/~sbinet/gg v0.7.0 // indirect
	github.com/agext/levenshtein v1.2.3 // indirect
	github.com/ajstarks/svgo v0.0.0-20211024235047-1546f124cd8b // indirect
	github.com/andybalholm/brotli v1.1.1 // indirect
	github.com/apparentlymart/go-textseg/v15 v15.0.0 // indirect
	github.com/apparentlymart/go-textseg/v17 v17.0.1 // indirect
	github.com/goccy/go-json v0.10.3 // indirect
	github.com/golang/freetype v0.0.0-20170609003504-e2365dfdc4a0 // indirect
	github.com/google/flatbuffers v24.3.25+incompatible // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/klauspost/cpuid/v2 v2.2.8 // indirect
	github.com/mitchellh/colorstring v0.0.0-20190213212951-d06e56a500db // indirect
	github.com/mitchellh/go-wordwrap v1.0.1 // indirect
	github.com/parquet-go/bitpack v1.0.0 // indirect
	github.com/parquet-go/jsonlite v1.0.0 // indirect
	github.com/pierrec/lz4/v4 v4.1.21 // indirect
	github.com/spf13/pflag v1.1.0 // indirect
	github.com/twpayne/go-geom v1.6.1 // indirect
	github.com/zeebo/xxh3 v1.0.2 // indirect
	golang.org/x/exp v0.0.0-20240222234643-814bf88cf225 // indirect
	golang.org/x/image v0.30.0 // indirect
	golang.org/x/mod v0.41.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/telemetry v0.0.0-20260924152758-ed294f943157 // indirect
	golang.org/x/term v0.47.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	golang.org/x/tools v0.51.0 // indirect
	golang.org/x/xerrors v0.0.0-20231012003039-104605ab7028 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)
