package sweep

// code is one kind of message: its stable name, by which docs/messages.md
// explains it with a wrong and a right file, and its summary, two to five words
// that name the thing wrong. A name is never given a second meaning.
type code string

func (c code) id() string { return string(c[:4]) }

func (c code) summary() string { return string(c[5:]) }

// The codes: S1 files and syntax, S2 variables and expressions, S3 the matrix,
// S4 settings and blocks, S5 what the command line chose, S9 warnings.
const (
	codeSyntax       code = "S101 Syntax error"
	codeUnreadable   code = "S102 File cannot be read"
	codeNoFiles      code = "S103 No sweep files"
	codeTooLarge     code = "S104 Too large or too deep"
	codeUnknownArg   code = "S105 Unknown argument"
	codeUnknownBlock code = "S106 Unknown block type"
	codeMissingArg   code = "S107 Missing argument"
	codeLabels       code = "S108 Wrong labels"
	codeNoBlocksHere code = "S109 Block among attributes"
	codeRepeatedBlk  code = "S110 Repeated block"
	codeDuplicate    code = "S111 Duplicate name"
	codeName         code = "S112 Unsuitable name"
	codeNoSweeps     code = "S113 No sweeps"
	codeMissingBlock code = "S114 Missing block"

	codeVarNoValue    code = "S201 Variable without value"
	codeVarType       code = "S202 Value of the wrong type"
	codeVarRule       code = "S203 Invalid value for variable"
	codeVarUnknownCLI code = "S204 Unknown variable on the command line"
	codeVarUnknown    code = "S205 Unknown variable in a file"
	codeVarDeclared   code = "S206 Block in a variable file"
	codeVarMalformed  code = "S207 Malformed variable"
	codeVarConstraint code = "S208 Unsuitable type"
	codeCircular      code = "S209 Circular reference"
	codeUnknownRoot   code = "S210 Unknown name"
	codeUnknownVar    code = "S211 Unknown variable"
	codeUnknownLocal  code = "S212 Unknown local value"
	codeOutOfScope    code = "S213 Name out of scope"
	codeUnknownFunc   code = "S214 Unknown function"
	codeFuncFailed    code = "S215 Function call failed"
	codeExprFailed    code = "S216 Expression failed"
	codeSensitive     code = "S217 Sensitive value out of place"
	codeValidation    code = "S218 Unsuitable validation rule"
	codeTooMuch       code = "S219 Expression too expensive"
	codeUnknownAttr   code = "S220 Unknown attribute"

	codeUnknownAxis  code = "S301 Unknown axis"
	codeEmptyAxis    code = "S302 Axis without values"
	codeRepeatedVal  code = "S303 Repeated axis value"
	codeMixedAxis    code = "S304 Axis of mixed types"
	codeAxisValue    code = "S305 Unsuitable axis value"
	codeListNeeded   code = "S306 A list is needed"
	codeTooMany      code = "S307 Too many points"
	codeOutside      code = "S308 Value outside the matrix"
	codeNoEffect     code = "S309 Exclude without effect"
	codeIncomplete   code = "S310 Incomplete point"
	codeRepeatedPt   code = "S311 Repeated point"
	codeNoPoints     code = "S312 Sweep without points"
	codeNoAxes       code = "S313 Matrix without axes"
	codeUnlikeKeys   code = "S314 Objects of unlike keys"
	codeSetTwice     code = "S315 Set in two places"
	codeEmptyExclude code = "S316 Empty exclude"
	codeUnknownModel code = "S317 Unknown model"
	codeNoModel      code = "S318 No model"
	codeUnusedAxis   code = "S319 Axis without use"

	codeValue       code = "S401 Unsuitable value"
	codeNotWhole    code = "S402 Not a whole number"
	codeUnit        code = "S403 Unit missing"
	codeEngine      code = "S404 Unknown engine"
	codeReserved    code = "S405 Reserved name"
	codeTooLong     code = "S406 Longer than max_model_len"
	codeChoice      code = "S407 Unknown choice"
	codeFewGPUs     code = "S408 Too few GPUs"
	codeUnknownGPU  code = "S409 Unknown GPU"
	codeEnvName     code = "S410 Unsuitable environment variable"
	codeTwins       code = "S411 Same profile twice"
	codeFlagValue   code = "S412 Unsuitable flag value"
	codeModelFolder code = "S413 Unreadable model folder"
	codePlant       code = "S414 Unsuitable plant"

	codeUnknownSweep code = "S501 Unknown sweep"
	codeFilter       code = "S502 Filter matches nothing"
	codeFlagMissing  code = "S503 Flag missing"

	codeUnknownFlag code = "S901 Unknown engine flag"
	// S902 warned of what S319 refuses; S903 warned of an order that loads engines
	// too often, which session mode puts right. Neither is given to anything else.
	codeHeads     code = "S904 Heads do not divide"
	codeContext   code = "S905 Longer than the model's context"
	codePickLarge code = "S906 Pick of everything"
	codeOddValue  code = "S907 Unusual value"
	codeNearModel code = "S908 Model close to another"
)
