package imagemgr

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/failpoint"
	"github.com/banger-vm/banger/internal/opstate"
)

// pullSteps are the steps of a pull before the image is recorded.
var pullSteps = []string{"pull.find", "pull.download", "pull.write", "publish", "publish.renamed"}

func nobody(context.Context, banger.ImageID) ([]string, error) { return nil, nil }

// TestFaults: a step that fails leaves nothing, and the same command then succeeds.
func TestFaults(t *testing.T) {
	ref := layoutOf(t, layerOf(t, file("a")))
	p := api.ImagePull{Ref: ref, Name: "it"}
	for _, step := range pullSteps {
		t.Run(step, func(t *testing.T) {
			m := pullManager(t)
			m.cfg.Points = failpoint.Set{"image." + step: "error"}
			_, err := m.Pull(t.Context(), p, opstate.Discard)
			wantKind(t, err, api.KindInternal, "failpoint image."+step)
			wantDirs(t, m)
			if all, err := m.List(t.Context()); err != nil || len(all) > 0 {
				t.Errorf("rows %v, %v", all, err)
			}
			m.cfg.Points = nil
			img, err := m.Pull(t.Context(), p, opstate.Discard)
			if err != nil {
				t.Fatal(err)
			}
			wantDirs(t, m, img.ID)
		})
	}
	t.Run("delete.marked", func(t *testing.T) {
		m := pullManager(t)
		img, err := m.Pull(t.Context(), p, opstate.Discard)
		if err != nil {
			t.Fatal(err)
		}
		m.cfg.Points = failpoint.Set{"image.delete.marked": "error"}
		wantKind(t, m.Delete(t.Context(), "it", nobody), api.KindInternal)
		wantDirs(t, m, img.ID)
		m.cfg.Points = nil
		if err := m.Delete(t.Context(), "it", nobody); err != nil {
			t.Fatal(err)
		}
		wantDirs(t, m)
	})
}

// killEnv has a child of the test, which is this program again, pull or delete until it kills itself; its value is STEP DIR REF.
const killEnv = "BANGER_TEST_KILLED_AT"

// TestKilled: whatever a process that was killed at a step left, the next start removes it or completes it; no image is half there.
func TestKilled(t *testing.T) {
	if at := os.Getenv(killEnv); at != "" {
		dieAt(t, strings.Fields(at))
		return
	}
	ref := layoutOf(t, layerOf(t, file("a")))
	for _, step := range append(pullSteps, "publish.recorded", "delete.marked", "delete.forgotten") {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
			cmd.Env = append(os.Environ(), killEnv+"="+strings.Join([]string{step, dir, ref}, " "))
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("it was not killed: %v\n%s", err, out)
			}
			m := diskManager(t, dir)
			if err := m.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			all, err := m.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if stays := step == "publish.recorded" || step == "delete.marked"; stays != (len(all) == 1) {
				t.Fatalf("images %v", all)
			}
			var ids []banger.ImageID
			for _, img := range all {
				ids = append(ids, img.ID)
			}
			wantDirs(t, m, ids...)
			img, err := m.Pull(t.Context(), api.ImagePull{Ref: ref, Name: "it"}, opstate.Discard)
			if err != nil {
				t.Fatal(err)
			}
			wantDirs(t, m, img.ID)
			if err := m.Delete(t.Context(), "it", nobody); err != nil {
				t.Fatal(err)
			}
			wantDirs(t, m)
		})
	}
}

// diskManager is a manager whose rows outlive the process: a file of the directory's rows for each image.
func diskManager(t *testing.T, dir string) *Manager {
	t.Helper()
	m := pullManager(t)
	m.cfg.Dir, m.cfg.Store = filepath.Join(dir, "images"), &fileStore{dir: filepath.Join(dir, "rows")}
	for _, d := range []string{m.cfg.Dir, filepath.Join(dir, "rows")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func dieAt(t *testing.T, at []string) {
	step, dir, ref := at[0], at[1], at[2]
	m := diskManager(t, dir)
	m.cfg.Points = failpoint.Set{"image." + step: "kill"}
	if _, err := m.Pull(t.Context(), api.ImagePull{Ref: ref, Name: "it"}, opstate.Discard); err != nil {
		t.Fatal(err)
	}
	if err := m.Delete(t.Context(), "it", nobody); err != nil {
		t.Fatal(err)
	}
}
