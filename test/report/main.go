// Command report reads `go test -json` from standard input and says in few lines what came of it: what failed, with its
// output; each package with its time; each skipped test with its reason; at the end what failed once more, by its last lines;
// and, on the last line, how many tests passed, failed and were skipped. Its exit status is 0 only if tests ran and none failed.
//
// A test with subtests counts by them, and itself only when it fails and none of them did. A package that fails without a
// failing test (it does not compile, it panics, it times out) counts as one failure.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

func main() {
	r := newReport(os.Stdout)
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(2)
	}
	if !r.finish() {
		os.Exit(1)
	}
}

// event is one line of test2json; see `go doc cmd/test2json`.
type event struct {
	Action, Package, Test, Output string
	ImportPath                    string // of build-output and build-fail
	FailedBuild                   string
	Elapsed                       float64
}

// slow is from when on a single test is shown as it passes, in seconds, so that a long run shows that it goes on.
const slow = 5

type report struct {
	out                     io.Writer
	passed, failed, skipped int
	output                  map[string]*strings.Builder // of packages and of tests that have not ended, by id
	parents                 map[string]bool             // tests that have subtests
	failedBelow             map[string]bool             // packages and tests in which a failure was counted
	reasons                 map[string]int              // of skips: how often
	failures                []string                    // each with the last lines it said
}

func newReport(out io.Writer) *report {
	return &report{out: out, output: map[string]*strings.Builder{}, parents: map[string]bool{},
		failedBelow: map[string]bool{}, reasons: map[string]int{}}
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintln(r.out, lines.Text()) // go's own words
			continue
		}
		r.event(e)
	}
	return lines.Err()
}

// id names a package, or a test in it.
func (e event) id() string {
	switch {
	case e.Package == "":
		return e.ImportPath
	case e.Test == "":
		return e.Package
	}
	return e.Package + " " + e.Test
}

// above calls fn with the ids of the package and the tests that e's test is in.
func (e event) above(fn func(id string)) {
	fn(e.Package)
	for i, c := range e.Test {
		if c == '/' {
			fn(e.Package + " " + e.Test[:i])
		}
	}
}

func (r *report) event(e event) {
	switch e.Action {
	case "output", "build-output":
		r.keep(e)
	case "run":
		e.above(func(id string) { r.parents[id] = true })
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e)
		} else {
			r.endTest(e)
		}
		delete(r.output, e.id())
	}
}

func (r *report) keep(e event) {
	b := r.output[e.id()]
	if b == nil {
		b = &strings.Builder{}
		r.output[e.id()] = b
	}
	b.WriteString(e.Output)
}

func (r *report) text(id string) string {
	if b := r.output[id]; b != nil {
		return b.String()
	}
	return ""
}

func (r *report) endTest(e event) {
	leaf := !r.parents[e.id()]
	switch {
	case e.Action == "fail" && !r.failedBelow[e.id()]:
		r.failed++
		e.above(func(id string) { r.failedBelow[id] = true })
		r.fail(e.id(), r.text(e.id()))
	case e.Action == "skip" && leaf:
		r.skipped++
		r.reasons[skipReason(r.text(e.id()))]++
		fmt.Fprintf(r.out, "skip %s\n", e.id())
	case e.Action == "pass" && leaf:
		r.passed++
		if e.Elapsed >= slow {
			fmt.Fprintf(r.out, "     %s %.1fs\n", e.id(), e.Elapsed)
		}
	}
}

func (r *report) endPackage(e event) {
	switch {
	case e.Action == "skip": // no test files
	case e.Action == "pass":
		fmt.Fprintf(r.out, "ok   %s %.1fs\n", e.Package, e.Elapsed)
	case !r.failedBelow[e.Package]:
		r.failed++
		r.fail(e.Package, r.text(e.FailedBuild)+r.text(e.Package))
	default:
		fmt.Fprintf(r.out, "FAIL %s %.1fs\n", e.Package, e.Elapsed)
	}
}

// lastLines is how many lines of a failure are said again at the end, where the log of a long run is cut last.
const lastLines = 12

func (r *report) fail(id, output string) {
	fmt.Fprintf(r.out, "FAIL %s\n%s\n", id, indent(output))
	lines := strings.Split(strings.TrimSpace(framing.ReplaceAllString(output, "")), "\n")
	lines = lines[max(0, len(lines)-lastLines):]
	r.failures = append(r.failures, id+"\n"+indent(strings.Join(lines, "\n")))
}

// finish prints the last lines of what failed, the reasons of skips and the counts, and reports whether all is well.
func (r *report) finish() bool {
	for _, failure := range r.failures {
		fmt.Fprintln(r.out, "failed:", failure)
	}
	if len(r.reasons) > 0 {
		fmt.Fprintln(r.out, "skipped because:")
	}
	for _, reason := range slices.Sorted(maps.Keys(r.reasons)) {
		fmt.Fprintf(r.out, "  %d × %s\n", r.reasons[reason], reason)
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return r.failed == 0 && r.passed > 0
}

var (
	framing  = regexp.MustCompile(`(?m)^\s*(=== |--- |PASS$|FAIL$).*\n?`)
	position = regexp.MustCompile(`^\S+\.go:\d+: `)
)

// skipReason is what the test said as it skipped, without its place in the source.
func skipReason(output string) string {
	text := strings.TrimSpace(framing.ReplaceAllString(output, ""))
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		text = strings.TrimSpace(text[i+1:])
	}
	if text = position.ReplaceAllString(text, ""); text == "" {
		return "no reason was given"
	}
	return text
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ")
}
