package sinks

import (
	"testing"

	"github.com/vramsweep/vramsweep/runner/sinktest"
)

func TestStoreIsASink(t *testing.T) { sinktest.Test(t, openStore(t, t.TempDir())) }
