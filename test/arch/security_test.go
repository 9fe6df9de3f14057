package arch

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityNamesTestsThatExist keeps docs/SECURITY.md from claiming proofs that are gone: what it writes as `PLACE` TestX is
// a test of that package, and `FILE.txtar` is a script.
func TestSecurityNamesTestsThatExist(t *testing.T) {
	doc, err := os.ReadFile("../../docs/SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z0-9/]+)` (Test[A-Za-z]+)").FindAllStringSubmatch(string(doc), -1)
	if len(named) < 10 {
		t.Fatalf("the document names only %d tests", len(named))
	}
	for _, n := range named {
		if !strings.Contains(testsOf(t, n[1]), "func "+n[2]+"(") {
			t.Errorf("%s has no %s", n[1], n[2])
		}
	}
	for _, n := range regexp.MustCompile("`([a-z]+\\.txtar)`").FindAllStringSubmatch(string(doc), -1) {
		if _, err := os.Stat(filepath.Join("../e2e/testdata", n[1])); err != nil {
			t.Error(err)
		}
	}
}

// testsOf returns the text of the tests in a directory of the module, without those below it.
func testsOf(t *testing.T, dir string) string {
	t.Helper()
	files, err := fs.Glob(os.DirFS("../.."), dir+"/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join("../..", f))
		if err != nil {
			t.Fatal(err)
		}
		b.Write(text)
	}
	return b.String()
}
