package sweep

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// What those write who come from other tools, and what it is called here. A hint
// begins with a blank.

// functionSlip is for a function that there is not.
func functionSlip(name string) string {
	switch name {
	case "filter":
		return " A for expression chooses from a list, [for n in list : n if n > 8]; exclude and --filter choose points."
	case "file", "fileexists", "fileset", "templatefile", "filebase64":
		return " A sweep file reads no other file. Declare a variable, and give its value with --var or --var-file."
	case "env", "getenv", "get_env":
		return ` The environment comes in through variables: declare variable "NAME" {} and set VRAMSWEEP_VAR_NAME.`
	case "timestamp", "uuid", "random", "plantimestamp":
		return " The same file gives the same plan: nothing depends on the time or on chance."
	}
	return ""
}

// argumentSlip is for an argument that there is not.
func argumentSlip(name string) string {
	switch name {
	case "for_each", "count":
		return " The matrix makes the profiles, one for each combination of its axes; repeats = N runs each of them N times."
	case "depends_on":
		return " Sweeps run one after another, in the order of the file."
	}
	return ""
}

// nameSlip is for a name that there is not.
func nameSlip(name string) string {
	switch name {
	case "each", "count", "self":
		return " The value of an axis at a point is matrix.NAME, that of a setting profile.NAME."
	case "env":
		return functionSlip("env")
	}
	return ""
}

var (
	mergeMarker = regexp.MustCompile(`(?m)^(<{7}|={7}|>{7})( .*)?$`)
	yamlLine    = regexp.MustCompile(`^\s*(- )?[\w-]+:(\s.*)?$`)
)

// syntaxSlip finds what a file that does not parse is instead, and where it shows.
func syntaxSlip(src []byte, hd hcl.Diagnostics) (detail string, rng hcl.Range) {
	rng = *hd[0].Subject
	place := func(from, to int) hcl.Range {
		line := bytes.Count(src[:from], []byte("\n")) + 1
		column := from - bytes.LastIndexByte(src[:from], '\n')
		return hcl.Range{Filename: rng.Filename, Start: hcl.Pos{Line: line, Column: column, Byte: from},
			End: hcl.Pos{Line: line, Column: column + to - from, Byte: to}}
	}
	if m := mergeMarker.FindIndex(src); m != nil {
		return "A merge conflict is left in the file: keep one of the two versions and take out the lines that start with " +
			"<<<<<<<, ======= and >>>>>>>.", place(m[0], m[0]+7)
	}
	for _, line := range bytes.Split(src, []byte("\n")) {
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' || strings.HasPrefix(text, "//") {
			continue
		}
		if text == "---" || yamlLine.Match(line) {
			return "This looks like YAML. A sweep file is HCL: blocks in braces, name = value. docs/language.md is the whole " +
				"language on one page.", rng
		}
		break
	}
	if rng.Start.Byte < len(src) {
		if c := []rune(string(src[rng.Start.Byte:min(rng.End.Byte, len(src))])); len(c) > 0 && c[0] >= '！' && c[0] <= '～' {
			return fmt.Sprintf("The character %q is a fullwidth one. Write %q.", c[0], c[0]-'！'+'!'), rng
		}
	}
	return "", rng
}

// operandSlip is for an operator that texts do not have.
func operandSlip(src []byte, rng hcl.Range) string {
	if rng.Start.Byte < rng.End.Byte && rng.End.Byte <= len(src) && src[rng.Start.Byte] == '"' {
		return ` Texts are joined in a template: "${matrix.a}-${matrix.b}".`
	}
	return ""
}

// shellVariable is a text that a shell would replace.
var shellVariable = regexp.MustCompile(`^\$(\w+|\{\w+\})$`)

// quantizations are the methods that vLLM 0.10 to 0.33 take.
func quantizations() []string {
	list := strings.Fields(`aqlm auto-round auto_awq auto_gptq awq awq_marlin bitblas bitsandbytes compressed-tensors
		cpu_awq deepseek_v4_fp8 deepspeedfp experts_int8 fbgemm_fp8 fp8 fp8_per_block fp8_per_channel fp8_per_tensor fp_quant
		gguf gpt_oss_mxfp4 gptq gptq_bitblas gptq_marlin gptq_marlin_24 hqq humming inc int8_per_channel_weight_only ipex
		marlin
		modelopt modelopt_fp4 modelopt_mixed modelopt_mxfp8 moe_wna16 mxfp4 mxfp8 neuron_quant nvfp4_per_token online
		petit_nvfp4 ptpc_fp8 qqq quark rtn torchao tpu_int8`)
	slices.Sort(list)
	return list
}
