package runner_test

import (
	"testing"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/runner/sinktest"
)

func TestKeeperIsASink(t *testing.T) { sinktest.Test(t, runner.NewKeeper()) }
