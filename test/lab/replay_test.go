package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
	"testing"
)

// results is what came of tests that ran elsewhere, from `go tool test2json`.
type results struct {
	tests map[string]*result  // by name, with those of the tests they are in: TestA/b
	below map[string][]string // names of the tests right below a name, in the order in which they ran; "" has the outermost
}

type result struct {
	action string // pass, fail, skip; empty: it did not end
	took   float64
	output strings.Builder
}

func read(in io.Reader) (*results, error) {
	r := &results{tests: map[string]*result{}, below: map[string][]string{}}
	for dec := json.NewDecoder(in); ; {
		var e struct {
			Action, Test, Output string
			Elapsed              float64
		}
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return r, nil
		} else if err != nil {
			return nil, err
		}
		if e.Test == "" {
			continue // of the program as a whole
		}
		switch e.Action {
		case "run":
			r.tests[e.Test] = &result{}
			above, _ := path.Split(e.Test)
			above = strings.TrimSuffix(above, "/")
			r.below[above] = append(r.below[above], e.Test)
		case "output":
			if t := r.tests[e.Test]; t != nil && !framing.MatchString(e.Output) {
				t.output.WriteString(e.Output)
			}
		case "pass", "fail", "skip":
			if t := r.tests[e.Test]; t != nil {
				t.action, t.took = e.Action, e.Elapsed
			}
		}
	}
}

// framing is what the testing package prints around a test's own output.
var framing = regexp.MustCompile(`^\s*(=== |--- )`)

// replay makes subtests of t of the tests below a name.
func (r *results) replay(t *testing.T, above string) {
	for _, name := range r.below[above] {
		t.Run(path.Base(name), func(t *testing.T) {
			r.replay(t, name)
			if why := r.tests[name].failure(); why != "" && !t.Failed() {
				t.Error(why)
			}
			if len(r.below[name]) == 0 {
				t.Logf("%.1fs in the lab", r.tests[name].took)
			}
		})
	}
}

// failure says why a test counts as failed; empty: it passed.
func (r *result) failure() string {
	switch r.action {
	case "pass":
		return ""
	case "skip":
		return "skipped, in the lab that has everything:\n" + r.output.String()
	case "fail":
		return fmt.Sprintf("failed:\n%s", r.output.String())
	}
	return "did not end:\n" + r.output.String()
}

func TestReplayOfWhatWasRead(t *testing.T) {
	r, err := read(strings.NewReader(`{"Action":"start"}
{"Action":"run","Test":"TestA"}
{"Action":"run","Test":"TestA/b"}
{"Action":"output","Test":"TestA/b","Output":"=== RUN   TestA/b\n"}
{"Action":"output","Test":"TestA/b","Output":"    x_test.go:1: words\n"}
{"Action":"fail","Test":"TestA/b","Elapsed":1.5}
{"Action":"fail","Test":"TestA"}
{"Action":"run","Test":"TestC"}
{"Action":"skip","Test":"TestC"}
{"Action":"run","Test":"TestD"}
{"Action":"pass","Test":"TestD"}
{"Action":"run","Test":"TestE"}
{"Action":"fail"}
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(r.below); got != "map[:[TestA TestC TestD TestE] TestA:[TestA/b]]" {
		t.Errorf("tests %s", got)
	}
	for name, want := range map[string]string{
		"TestA/b": "failed:\n    x_test.go:1: words\n", "TestC": "skipped, in the lab that has everything:\n", "TestD": "", "TestE": "did not end:\n",
	} {
		if got := r.tests[name].failure(); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
