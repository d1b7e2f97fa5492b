package sweep

import "maps"

// code is the stable name of a message. docs/messages.md explains each with a
// wrong and a right file. A code is never given a second meaning.
type code string

// The codes: S1 files and syntax, S2 variables and expressions, S3 the matrix,
// S4 settings and blocks, S5 what the command line chose, S9 warnings.
const (
	codeSyntax       code = "S101"
	codeUnreadable   code = "S102"
	codeNoFiles      code = "S103"
	codeTooLarge     code = "S104"
	codeUnknownArg   code = "S105"
	codeUnknownBlock code = "S106"
	codeMissingArg   code = "S107"
	codeLabels       code = "S108"
	codeNoBlocksHere code = "S109"
	codeRepeatedBlk  code = "S110"
	codeDuplicate    code = "S111"
	codeName         code = "S112"
	codeNoSweeps     code = "S113"
	codeMissingBlock code = "S114"

	codeVarNoValue    code = "S201"
	codeVarType       code = "S202"
	codeVarRule       code = "S203"
	codeVarUnknownCLI code = "S204"
	codeVarUnknown    code = "S205"
	codeVarDeclared   code = "S206"
	codeVarMalformed  code = "S207"
	codeVarConstraint code = "S208"
	codeCircular      code = "S209"
	codeUnknownRoot   code = "S210"
	codeUnknownVar    code = "S211"
	codeUnknownLocal  code = "S212"
	codeOutOfScope    code = "S213"
	codeUnknownFunc   code = "S214"
	codeFuncFailed    code = "S215"
	codeExprFailed    code = "S216"
	codeSensitive     code = "S217"
	codeValidation    code = "S218"
	codeTooMuch       code = "S219"
	codeUnknownAttr   code = "S220"

	codeUnknownAxis  code = "S301"
	codeEmptyAxis    code = "S302"
	codeRepeatedVal  code = "S303"
	codeMixedAxis    code = "S304"
	codeAxisValue    code = "S305"
	codeListNeeded   code = "S306"
	codeTooMany      code = "S307"
	codeOutside      code = "S308"
	codeNoEffect     code = "S309"
	codeIncomplete   code = "S310"
	codeRepeatedPt   code = "S311"
	codeNoPoints     code = "S312"
	codeNoAxes       code = "S313"
	codeUnlikeKeys   code = "S314"
	codeSetTwice     code = "S315"
	codeEmptyExclude code = "S316"
	codeUnknownModel code = "S317"
	codeNoModel      code = "S318"

	codeValue       code = "S401"
	codeNotWhole    code = "S402"
	codeUnit        code = "S403"
	codeEngine      code = "S404"
	codeReserved    code = "S405"
	codeTooLong     code = "S406"
	codeChoice      code = "S407"
	codeFewGPUs     code = "S408"
	codeUnknownGPU  code = "S409"
	codeEnvName     code = "S410"
	codeTwins       code = "S411"
	codeFlagValue   code = "S412"
	codeModelFolder code = "S413"
	codePlant       code = "S414"

	codeUnknownSweep code = "S501"
	codeFilter       code = "S502"
	codeFlagMissing  code = "S503"

	codeUnknownFlag code = "S901"
	codeUnusedAxis  code = "S902"
	// S903 warned of an order that loads engines too often; session mode groups by
	// engine whatever the order is. The code is not given to anything else.
	codeHeads     code = "S904"
	codeContext   code = "S905"
	codePickLarge code = "S906"
	codeOddValue  code = "S907"
	codeNearModel code = "S908"
)

// summaries gives each code its heading: two to five words that name the
// thing wrong.
func summaries() map[code]string {
	all := map[code]string{}
	for _, part := range []map[code]string{fileSummaries(), expressionSummaries(), matrixSummaries(), valueSummaries(), choiceSummaries(), warningSummaries()} {
		maps.Copy(all, part)
	}
	return all
}

func fileSummaries() map[code]string {
	return map[code]string{
		codeSyntax:       "Syntax error",
		codeUnreadable:   "File cannot be read",
		codeNoFiles:      "No sweep files",
		codeTooLarge:     "Too large or too deep",
		codeUnknownArg:   "Unknown argument",
		codeUnknownBlock: "Unknown block type",
		codeMissingArg:   "Missing argument",
		codeLabels:       "Wrong labels",
		codeNoBlocksHere: "Block among attributes",
		codeRepeatedBlk:  "Repeated block",
		codeDuplicate:    "Duplicate name",
		codeName:         "Unsuitable name",
		codeNoSweeps:     "No sweeps",
		codeMissingBlock: "Missing block",
	}
}

func expressionSummaries() map[code]string {
	return map[code]string{
		codeVarNoValue:    "Variable without value",
		codeVarType:       "Value of the wrong type",
		codeVarRule:       "Invalid value for variable",
		codeVarUnknownCLI: "Unknown variable on the command line",
		codeVarUnknown:    "Unknown variable in a file",
		codeVarDeclared:   "Block in a variable file",
		codeVarMalformed:  "Malformed variable",
		codeVarConstraint: "Unsuitable type",
		codeCircular:      "Circular reference",
		codeUnknownRoot:   "Unknown name",
		codeUnknownVar:    "Unknown variable",
		codeUnknownLocal:  "Unknown local value",
		codeOutOfScope:    "Name out of scope",
		codeUnknownFunc:   "Unknown function",
		codeFuncFailed:    "Function call failed",
		codeExprFailed:    "Expression failed",
		codeSensitive:     "Sensitive value out of place",
		codeValidation:    "Unsuitable validation rule",
		codeTooMuch:       "Expression too expensive",
		codeUnknownAttr:   "Unknown attribute",
	}
}

func matrixSummaries() map[code]string {
	return map[code]string{
		codeUnknownAxis:  "Unknown axis",
		codeEmptyAxis:    "Axis without values",
		codeRepeatedVal:  "Repeated axis value",
		codeMixedAxis:    "Axis of mixed types",
		codeAxisValue:    "Unsuitable axis value",
		codeListNeeded:   "A list is needed",
		codeTooMany:      "Too many points",
		codeOutside:      "Value outside the matrix",
		codeNoEffect:     "Exclude without effect",
		codeIncomplete:   "Incomplete point",
		codeRepeatedPt:   "Repeated point",
		codeNoPoints:     "Sweep without points",
		codeNoAxes:       "Matrix without axes",
		codeUnlikeKeys:   "Objects of unlike keys",
		codeSetTwice:     "Set in two places",
		codeEmptyExclude: "Empty exclude",
		codeUnknownModel: "Unknown model",
		codeNoModel:      "No model",
	}
}

func valueSummaries() map[code]string {
	return map[code]string{
		codeValue:       "Unsuitable value",
		codeNotWhole:    "Not a whole number",
		codeUnit:        "Unit missing",
		codeEngine:      "Unknown engine",
		codeReserved:    "Reserved name",
		codeTooLong:     "Longer than max_model_len",
		codeChoice:      "Unknown choice",
		codeFewGPUs:     "Too few GPUs",
		codeUnknownGPU:  "Unknown GPU",
		codeEnvName:     "Unsuitable environment variable",
		codeTwins:       "Same profile twice",
		codeFlagValue:   "Unsuitable flag value",
		codeModelFolder: "Unreadable model folder",
		codePlant:       "Unsuitable plant",
	}
}

func choiceSummaries() map[code]string {
	return map[code]string{
		codeUnknownSweep: "Unknown sweep",
		codeFilter:       "Filter matches nothing",
		codeFlagMissing:  "Flag missing",
	}
}

func warningSummaries() map[code]string {
	return map[code]string{
		codeUnknownFlag: "Unknown engine flag",
		codeUnusedAxis:  "Axis without use",
		codeHeads:       "Heads do not divide",
		codeContext:     "Longer than the model's context",
		codePickLarge:   "Pick of everything",
		codeOddValue:    "Unusual value",
		codeNearModel:   "Model close to another",
	}
}
