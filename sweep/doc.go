// Package sweep is the language of vramsweep: it reads sweep files (HCL or its
// JSON form) and turns them into a Plan of fully resolved profiles.
//
// It owns parsing, variables, locals, matrices, functions, diagnostics and
// formatting. It knows neither GPUs nor processes, reads no environment, and
// lets no type of hcl or cty out.
package sweep
