package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vramsweep/vramsweep/runner"
	"github.com/vramsweep/vramsweep/sweep/testenv"
)

const slurmSweep = `
sweep "night" {
  matrix {
    model      = ["Qwen/Qwen3-0.6B"]
    input_len  = [128]
    output_len = [32]
    batch_size = range(1, 13)
  }
  engine "simulator" { time_scale = 25 }
  sample { interval = "50ms" }
}
`

// A cluster is a Slurm of three nodes on this machine.
type cluster struct {
	t      *testing.T
	script string
	dir    string
	env    []string
}

// do runs one of Slurm's programs, or the script.
func (c *cluster) do(argv ...string) string {
	c.t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = c.dir, c.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return strings.TrimSpace(string(out))
}

func newCluster(t *testing.T, bin string) *cluster {
	t.Helper()
	for _, tool := range []string{"slurmctld", "sbatch", "munged"} {
		_, err := exec.LookPath(tool)
		if _, serr := os.Stat("/usr/sbin/" + tool); err != nil && serr != nil {
			testenv.Skip(t, "%s is not installed: .ci/setup does that", tool)
		}
	}
	script, err := filepath.Abs("../../.ci/mini-slurm.sh")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "vramsweep-slurm-") // sockets lie in it: t.TempDir() is too long
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, script: script, dir: dir, env: append(withoutFakes(), "SLURM_CONF="+dir+"/slurm/slurm.conf")}
	path := filepath.Dir(bin) + ":/usr/sbin:/sbin:"
	for i, e := range c.env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			c.env[i] = "PATH=" + path + value
		}
	}
	t.Cleanup(func() {
		c.do(script, "stop", dir+"/slurm")
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	c.do(script, "start", dir+"/slurm", "3", "2")
	return c
}

// TestSlurm hands the job that emit prints to a real Slurm: an array of 6 on 3 nodes.
// A node dies, the daemon of another dies while its job runs on, so that Slurm starts
// the element a second time, and one element is requeued. In the end each run has
// exactly one row and nothing is left running.
func TestSlurm(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	bin := buildProgram(t)
	c := newCluster(t, bin)
	file := writeSweep(t, c.dir, slurmSweep)
	job := c.do(bin, "emit", "slurm", file, "--shards", "6", "--gpus", "2", "--output-dir", "out")
	if err := os.WriteFile(c.dir+"/job.sh", []byte(job+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	id := c.do("sbatch", "--parsable", "job.sh")
	out := c.dir + "/out"
	waitFor(t, "three shards that run", func() bool {
		begun, _ := filepath.Glob(out + "/runs/slurm-" + id + "/*/journal.arrows")
		return len(begun) >= 3
	})
	running := func(node string) string {
		return c.do("squeue", "--noheader", "--states=RUNNING", "--nodelist="+node, "--format=%A_%a %i")
	}
	t.Logf("n1 %s; n2 %s; n3 %s", running("n1"), running("n2"), running("n3"))
	c.do(c.script, "node-kill", c.dir+"/slurm", "n1")
	c.do(c.script, "slurmd-kill", c.dir+"/slurm", "n2")
	third := strings.Fields(running("n3"))
	if len(third) == 0 {
		t.Fatal("nothing runs on n3")
	}
	c.do("scontrol", "requeue", third[len(third)-1])
	time.Sleep(8 * time.Second) // Slurm finds the nodes down
	c.do(c.script, "node-start", c.dir+"/slurm", "n1")
	c.do(c.script, "node-start", c.dir+"/slurm", "n2")
	waitFor(t, "the array to end", func() bool { return c.do("squeue", "--noheader", "--jobs="+id) == "" })
	cmd := exec.Command(bin, "status", out)
	status, err := cmd.CombinedOutput()
	if err != nil {
		logs, _ := filepath.Glob(c.dir + "/*.log")
		for _, log := range logs {
			text, _ := os.ReadFile(log)
			t.Logf("%s:\n%s", filepath.Base(log), text)
		}
		t.Fatalf("%v\n%s", err, status)
	}
	checkFolder(t, c.dir, 12, func(r *runner.Result) bool { return r.Run.Outcome == runner.OutcomeOK })
}
