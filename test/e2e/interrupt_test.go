package e2e

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestInterrupts(t *testing.T) {
	h := guests(t)
	for _, point := range around("attach", capabilities...) {
		t.Run("Ctrl-C at "+point+" of create and of run ends both with 130 and leaves nothing", func(t *testing.T) {
			h.with(t, point+"=delay:10m")
			suffix := strings.ReplaceAll(point, ".", "-")
			create := h.start(t, "vm", "create", "--start", "--name", "create-"+suffix, "--memory", "128M")
			run := h.start(t, "vm", "run", "--rm", "--no-workspace", "--name", "run-"+suffix, "--memory", "128M", "--", "true")
			for name, c := range map[string]*client{"create-" + suffix: create, "run-" + suffix: run} {
				h.reaches(t, name, point)
				c.signal(syscall.SIGINT)
			}
			create.ends(130, "^banger: interrupted by SIGINT")
			run.ends(130, "^banger: interrupted by SIGINT")
			h.empty(t)
		})
	}
	t.Run("Ctrl-C while a workspace is carried in, and while the command runs, leaves nothing", func(t *testing.T) {
		repo := repository(t)
		big := make([]byte, 96<<20)
		rand.Read(big)
		if err := os.WriteFile(filepath.Join(repo, "big"), big, 0o600); err != nil {
			t.Fatal(err)
		}
		c := h.start(t, "vm", "run", "--rm", "--include-untracked", repo, "--", "sleep", "1000")
		c.prints("boot guest")
		c.signal(syscall.SIGINT)
		c.ends(130)
		h.empty(t)
		c = h.start(t, "vm", "run", "--rm", repo, "--", "sh", "-c", "echo begun; exec sleep 1000")
		c.prints("begun")
		c.signal(syscall.SIGINT)
		c.ends(130)
		h.empty(t)
	})
	t.Run("Ctrl-C while the first image is built ends the build and leaves nothing", func(t *testing.T) {
		h := h.fresh(t)
		c := h.start(t, "vm", "run", "--rm", "--no-workspace", "--", "true")
		c.prints("prepare")
		c.signal(syscall.SIGINT)
		c.ends(130, "^banger: interrupted by SIGINT")
		h.empty(t)
		if images, err := os.ReadDir(filepath.Join(h.root, "state/images")); err != nil || len(images) > 0 {
			t.Errorf("left of the image: %v %v", images, err)
		}
	})
}

func TestKilledWhileCreating(t *testing.T) {
	h := guests(t)
	h.with(t, "machine.attach=delay:2s")
	create := h.start(t, "vm", "create", "--start", "--name", "goes-on", "--memory", "128M")
	run := h.start(t, "vm", "run", "--rm", "--no-workspace", "--name", "goes-away", "--memory", "128M", "--", "true")
	for name, c := range map[string]*client{"goes-on": create, "goes-away": run} {
		h.reaches(t, name, "machine.attach")
		c.signal(syscall.SIGKILL)
		c.ends(-1)
	}
	t.Run("a creation whose client is killed goes on, and can be watched", func(t *testing.T) {
		line := "{{.ID}} {{.Subject}} {{.State}}"
		id, ok := strings.CutSuffix(lineWith(h.must(t, "operation", "list", "--format", line), " goes-on running"), " goes-on running")
		if !ok {
			t.Fatal("the operation is not listed as running")
		}
		eventually(t, "the operation has succeeded", func() bool {
			return h.must(t, "operation", "show", "--format", "{{.State}}", id) == "succeeded"
		})
		h.must(t, "exec", "goes-on", "--", "true")
		h.must(t, "vm", "delete", "--force", "goes-on")
	})
	t.Run("the VM of a vm run --rm whose client is killed goes", func(t *testing.T) {
		eventually(t, "the VM is gone", func() bool { return h.must(t, "vm", "list", "--quiet") == "" })
		h.empty(t)
	})
}

// lineWith returns the first line of s that holds part.
func lineWith(s, part string) string {
	for line := range strings.Lines(s) {
		if strings.Contains(line, part) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}
