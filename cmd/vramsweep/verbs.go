package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/vramsweep/vramsweep/runner/gpu"
	"github.com/vramsweep/vramsweep/runner/simulate"
)

// verbs are all that a user sees, in the order of the help text.
func (w *world) verbs() []verbGroup {
	return []verbGroup{
		{"Sweeps", []*cobra.Command{w.runVerb(), w.planVerb(), w.validateVerb(), w.fmtVerb(), w.listVerb(), w.profileVerb(),
			w.calibrateVerb(), w.modelsVerb(), w.emitVerb()}},
		{"Machine and logs", []*cobra.Command{w.explainVerb(), w.gpusVerb(), w.doctorVerb(), w.monitorVerb(),
			w.versionVerb()}},
		{"Output folders", []*cobra.Command{w.statusVerb(), w.verifyVerb(), w.recoverVerb(), w.compactVerb(), w.exportVerb(),
			w.schemaVerb(), w.reparseVerb(), w.importVerb()}},
		{"Analysis", []*cobra.Command{w.summaryVerb(), w.compareVerb(), w.correlateVerb(), w.overheadVerb(), w.checkCalculatorVerb(),
			w.reportVerb(), w.plotVerb()}},
	}
}

// hiddenVerbs are those that vramsweep starts itself with.
func (w *world) hiddenVerbs() []*cobra.Command {
	return []*cobra.Command{
		{
			Use: nvmlHelper, Hidden: true, DisableFlagParsing: true,
			RunE: func(*cobra.Command, []string) error { return quiet(gpu.NVMLHelperMain(w.stdin, w.stdout)) },
		},
		{
			Use: simulatedVLLM, Hidden: true, DisableFlagParsing: true,
			RunE: func(cmd *cobra.Command, args []string) error {
				return quiet(simulate.VLLM(cmd.Context(), args, w.env, os.Stdout, os.Stderr))
			},
		},
	}
}
