package simulate

import (
	"fmt"
	"io"
	"reflect"

	"github.com/vramsweep/vramsweep/sweep"
)

// SameRun says where a command line and a profile come to different runs.
func SameRun(args []string, p *sweep.Profile) error {
	c, err := ConfigFor(p, 1)
	if err != nil {
		return err
	}
	v, err := parseVersion(c.Version)
	if err != nil {
		return err
	}
	prog, rest, _ := findVerb(args, v, io.Discard, io.Discard)
	if prog == "" {
		return fmt.Errorf("no verb in %q", args)
	}
	given, err := parseArgs(prog, rest)
	if err != nil {
		return err
	}
	made, err := requestFor(p)
	if err != nil {
		return err
	}
	one, two := scriptOf(c, given, nil, nil), scriptOf(c, made, nil, nil)
	if !reflect.DeepEqual(one.figures.memory, two.figures.memory) || !reflect.DeepEqual(one.figures.latencies, two.figures.latencies) || one.figures.kvTokens != two.figures.kvTokens {
		return fmt.Errorf("%+v and %+v", one.figures.memory, two.figures.memory)
	}
	return nil
}
