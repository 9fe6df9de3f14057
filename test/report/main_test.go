package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// run runs the tests of a module with the one given file, and returns what is reported.
func run(t *testing.T, test string) (string, bool) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module m\n\ngo 1.26\n", "m_test.go": "package m\n\nimport \"testing\"\n\n" + test} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-json", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, _ := cmd.Output() // its exit status is what is reported
	var got strings.Builder
	r := newReport(&got)
	if err := r.read(strings.NewReader(string(out))); err != nil {
		t.Fatal(err)
	}
	ok := r.finish()
	return got.String(), ok
}

func TestReport(t *testing.T) {
	for _, c := range []struct {
		name, test string
		ok         bool
		want       []string
	}{
		{"counts leaves, and gives the reasons of skips", `
			func TestA(t *testing.T) { t.Run("x", func(*testing.T) {}); t.Run("y/z", func(*testing.T) {}) }
			func TestB(t *testing.T) { t.Log("noise"); t.Skip("no loop devices here") }
			func TestC(t *testing.T) { t.Skip("no loop devices here") }`,
			true, []string{"skip m TestB", "2 × no loop devices here", "\n2 passed, 0 failed, 2 skipped\n"}},
		{"shows what failed with its output, and at the end its last lines", `
			func TestA(t *testing.T) { t.Run("x", func(t *testing.T) { t.Error("it broke") }); t.Run("y", func(*testing.T) {}) }`,
			false, []string{"FAIL m TestA/x\n", "it broke", "\nfailed: m TestA/x\n    m_test.go:6: it broke\n1 passed, 1 failed, 0 skipped\n"}},
		{"counts a test that fails beside its subtests", `
			func TestA(t *testing.T) { t.Run("x", func(*testing.T) {}); t.Error("mine") }`,
			false, []string{"mine", "\n1 passed, 1 failed, 0 skipped\n"}},
		{"a package that does not compile is a failure", `func TestA(t *testing.T) { undefined() }`,
			false, []string{"undefined: undefined", "\n0 passed, 1 failed, 0 skipped\n"}},
		{"a panic is a failure", `func TestA(t *testing.T) { panic("oops") }`,
			false, []string{"oops", " 1 failed, 0 skipped\n"}},
		{"an exit is a failure", `func TestMain(m *testing.M) { panic("early") }`,
			false, []string{"early", "\n0 passed, 1 failed, 0 skipped\n"}},
		{"no tests at all is not well", `var _ testing.TB`,
			false, []string{"0 passed, 0 failed, 0 skipped\n"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := run(t, c.test)
			if ok != c.ok {
				t.Errorf("well: %v", ok)
			}
			for _, w := range c.want {
				if !strings.Contains(got, w) {
					t.Errorf("report\n%s\ndoes not say %q", got, w)
				}
			}
		})
	}
}
