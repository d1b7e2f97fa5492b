package gpu

import (
	"context"
	"errors"
)

type amdCard struct{}

func (m *Machine) tryNVML(ctx context.Context, all bool) SourceStatus {
	return SourceStatus{Reason: "not yet"}
}
func (m *Machine) tryAMDGPU() SourceStatus { return SourceStatus{Reason: "not yet"} }
func (m *Machine) trySlow(ctx context.Context, name string, all bool) SourceStatus {
	return SourceStatus{Reason: "not yet"}
}
func newNVMLSource(o Options, r Run, t *tree, d []smiDevice) source { return nil }
func newAMDSource(o Options, r Run, c []*amdCard, t *tree) source   { return nil }
func newSlowSource(o Options, r Run, name string, d any) source     { return nil }
func nvmlOnce(ctx context.Context, o Options) (*Reading, error)     { return nil, errors.New("not yet") }
func (m *Machine) fullAMD(ctx context.Context, want []int) (*Reading, error) {
	return nil, errors.New("not yet")
}
func isNo(b []byte) bool                { return false }
func readNo(b []byte) (*Reading, error) { return nil, nil }
