package report

import (
	_ "embed" // the report's page, script and chart library
	"encoding/json"
	"fmt"
	"html"
	"io"

	"github.com/vramsweep/vramsweep/sinks/analyze/frame"
)

// The page is static; all data is in one JSON block that the script reads.
// uPlot 1.6.32 (MIT, by Leon Sorokin) draws the curves; its licence goes with it.
var (
	//go:embed assets/report.html
	reportBody string
	//go:embed assets/report.css
	reportCSS string
	//go:embed assets/report.js
	reportJS string
	//go:embed assets/uplot.js
	uplotJS string
	//go:embed assets/uplot.css
	uplotCSS string
	//go:embed assets/uplot.LICENSE
	uplotLicence string
)

// HTML writes the report as one file that needs no other: it works offline and
// its content security policy forbids any request.
func (r *Report) HTML(out io.Writer) error {
	data, err := json.Marshal(r) // escapes <, > and &, so that no text of a log can end the block
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	w := frame.NewText(out)
	w.Printf("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")
	w.Printf("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline'; " +
		"style-src 'unsafe-inline'; img-src data:\">\n")
	w.Printf("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n")
	w.Printf("<title>%s</title>\n", html.EscapeString(r.Title))
	w.Printf("<style>\n%s\n%s\n</style>\n</head>\n%s\n", uplotCSS, reportCSS, reportBody)
	w.Printf("<script id=\"data\" type=\"application/json\">%s</script>\n", data)
	w.Printf("<script>/*\n%s*/\n%s\n</script>\n", uplotLicence, uplotJS)
	w.Printf("<script>\n%s\n</script>\n</body>\n</html>\n", reportJS)
	if w.Err != nil {
		return fmt.Errorf("writing the report: %w", w.Err)
	}
	return nil
}
