// Package bench measures the built programs as a user meets them: whole processes, real guests, a daemon of their own.
//
// A figure on one machine says little to a person with another, so every figure that can have one stands beside a floor that
// was measured in the same run, interleaved with it: what the same work costs without banger. The ratio is the median of
// the ratios of neighbouring samples, which a machine whose speed drifts does not spoil. Targets are of issue 2.
//
// A benchmark is one measurement of as many samples as it needs, so run them by -benchtime 1x, as `make bench` does. The
// table at the end has what they found. Nothing here fails because something is slow.
package bench

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// home is the banger under test and results what was found; TestMain's hand to the benchmarks.
var (
	home    *house //nolint:gochecknoglobals // as above
	results table  //nolint:gochecknoglobals // as above
)

func TestMain(m *testing.M) {
	root := flag.String("root", "", "BANGER_ROOT to use and keep, with its image; default: a new one, which is removed")
	flag.Parse()
	if flag.Lookup("test.bench").Value.String() == "" {
		os.Exit(m.Run()) // go test ./... : tests of the table only
	}
	status, err := run(m, *root)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M, root string) (status int, err error) {
	scratch, err := os.MkdirTemp("", "bgb")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(scratch)
	if root == "" {
		root = filepath.Join(scratch, "root")
	}
	home, err = openHouse(root, scratch)
	if err != nil {
		return 1, err
	}
	status = m.Run()
	results.print(os.Stdout)
	return status, home.close()
}
