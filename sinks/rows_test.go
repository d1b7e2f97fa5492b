package sinks

import (
	"testing"

	"github.com/parquet-go/parquet-go"
)

func TestSchemasAreAccepted(t *testing.T) {
	for _, s := range []*parquet.Schema{
		parquet.SchemaOf(RunRow{}), parquet.SchemaOf(RankRow{}), parquet.SchemaOf(TimelineRow{}),
		parquet.SchemaOf(PhaseRow{}), parquet.SchemaOf(BreakdownRow{}), parquet.SchemaOf(StepRow{}), parquet.SchemaOf(LatencyRow{}),
	} {
		t.Log(s)
	}
}
