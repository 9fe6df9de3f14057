package power

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestProcesses(t *testing.T) {
	proc := t.TempDir()
	for name, stat := range map[string]string{
		"1":    "1 (init) S 0 1 1 0 -1",
		"2":    "2 (kthreadd) S 0 0 0 0 -1",
		"30":   "30 (kworker/0:1) I 2 0 0 0 -1",
		"400":  "400 (bash) S 1 400 400 34816 400",
		"401":  "401 (a b) c) S 400 401 400 34816 400",
		"500":  "500 (daemon) S 1 500 500 0 -1",
		"self": "400 (bash) S 1 400 400 34816 400",
	} {
		if err := os.MkdirAll(filepath.Join(proc, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(proc, name, "stat"), []byte(stat), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := processes(proc)
	slices.SortFunc(got, func(a, b process) int { return a.pid - b.pid })
	want := []process{{400, true}, {401, false}, {500, false}}
	if !slices.Equal(got, want) {
		t.Errorf("processes are %v, want %v", got, want)
	}
}

func TestSoftOff(t *testing.T) {
	if !hasSoftOff([]byte("DSDT....\x08_S5_\x12\x06")) || hasSoftOff([]byte("DSDT....\x08_S3_\x12\x06")) || hasSoftOff(nil) {
		t.Error("soft-off is where the table defines _S5_")
	}
}
