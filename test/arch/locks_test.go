package arch

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLocksAreInTheDocument keeps docs/LOCKING.md from being wrong about which mutexes there are.
func TestLocksAreInTheDocument(t *testing.T) {
	doc, err := os.ReadFile("../../docs/LOCKING.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := regexp.MustCompile("`(api|client|internal)[a-z/]*` `[A-Za-z]+\\.[a-z]+`").FindAllString(string(doc), -1)
	packages, err := Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	locks, err := Locks(packages)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(documented)
	slices.Sort(locks)
	if d := cmp.Diff(slices.Compact(documented), slices.Compact(locks)); d != "" {
		t.Errorf("docs/LOCKING.md has -, the code has +:\n%s", d)
	}
}
