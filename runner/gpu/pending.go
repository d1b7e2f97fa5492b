package gpu

import (
	"context"
	"errors"
)

func (m *Machine) trySlow(ctx context.Context, name string, all bool) SourceStatus {
	return SourceStatus{Reason: "not yet"}
}
func newSlowSource(o Options, r Run, name string, d any) source { return nil }
func (m *Machine) fullAMD(ctx context.Context, want []int) (*Reading, error) {
	return nil, errors.New("not yet")
}
