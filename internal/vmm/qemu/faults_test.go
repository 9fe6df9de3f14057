package qemu

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/vmm/vmmproc"
	"golang.org/x/sys/unix"
)

// testGroup returns a control group for a test, which leaves nothing of it; empty where the host gives none.
func testGroup(t *testing.T) host.Cgroup {
	t.Helper()
	group, err := host.FindCgroup("banger-test-" + filepath.Base(shortDir(t)))
	if err != nil {
		t.Logf("without control groups: %v", err)
		return ""
	}
	t.Cleanup(func() {
		if _, err := os.Stat(string(group)); err == nil {
			t.Errorf("left: control group %s", group)
		}
	})
	return group
}

// homeIn is a home of machines whose groups are in group.
func homeIn(group host.Cgroup) *vmmproc.Home {
	return vmmproc.NewHome(Name, group, slog.New(slog.DiscardHandler))
}

func TestFaults(t *testing.T) {
	t.Run("the words of a QEMU that dies at once are in the error", func(t *testing.T) {
		d := emulating(t, program(t, current+"echo \"qemu: -drive file=root: Could not open 'root'\" >&2; exit 1"))
		refused(t, d, anySpec(t), "exit status 1: qemu: -drive file=root: Could not open 'root'", "QEMU's own")
	})
	t.Run("a run directory whose path is too long for sockets is refused", func(t *testing.T) {
		spec := anySpec(t)
		spec.RunDir = filepath.Join(spec.RunDir, strings.Repeat("d", 100))
		if err := os.Mkdir(spec.RunDir, 0o700); err != nil {
			t.Fatal(err)
		}
		refused(t, emulating(t, program(t, current+"exec sleep 1000")), spec, "longer than 107 bytes", "BANGER_ROOT")
	})
	t.Run("a QEMU that never serves is killed when the start's context ends", func(t *testing.T) {
		spec := anySpec(t)
		fifo := filepath.Join(spec.Dir, "fifo")
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		d := emulating(t, program(t, current+"echo $$ >"+fifo+"; exec sleep 1000"))
		d.home = homeIn(testGroup(t))
		ctx, cancel := context.WithCancel(t.Context())
		pids := make(chan string)
		go func() {
			b, err := os.ReadFile(fifo) // waits for the program
			if err != nil {
				t.Error(err)
			}
			cancel()
			pids <- strings.TrimSpace(string(b))
		}()
		_, err := d.Start(ctx, spec)
		if !errkind.Is(err, api.KindCanceled) || !strings.Contains(err.Error(), "does not serve") {
			t.Errorf("got %v of kind %s", err, errkind.Of(err))
		}
		pid, err := strconv.Atoi(<-pids)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := host.StartTime(pid); !errkind.Is(err, api.KindNotFound) {
			t.Errorf("process %d lives: %v", pid, err)
		}
		if entries, err := os.ReadDir(spec.RunDir); err != nil || len(entries) > 0 {
			t.Errorf("left %v, %v", entries, err)
		}
	})
	t.Run("a QEMU that never serves does not hold up a start without a deadline", func(t *testing.T) {
		d := emulating(t, program(t, current+"exec sleep 1000"))
		d.serveWithin, d.home = 0, homeIn(testGroup(t)) // which goes with its last process
		_, err := d.Start(t.Context(), anySpec(t))
		if !errkind.Is(err, api.KindTimeout) || !strings.Contains(errkind.Hint(err), "--source vmm") {
			t.Errorf("got %v of kind %s, hint %q", err, errkind.Of(err), errkind.Hint(err))
		}
	})
	t.Run("what a QEMU started dies with it, where there are control groups", func(t *testing.T) {
		group := testGroup(t)
		if group == "" {
			t.Skip("no control group of version 2 that may be written to")
		}
		spec := anySpec(t)
		pidFile := filepath.Join(spec.Dir, "pid")
		d := emulating(t, program(t, current+"sleep 1000 & echo $! >"+pidFile+"; exit 1"))
		d.home = homeIn(group)
		refused(t, d, spec, "exit status 1", "QEMU's own")
		b, err := os.ReadFile(pidFile)
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := host.StartTime(pid); !errkind.Is(err, api.KindNotFound) {
			t.Errorf("process %d lives: %v", pid, err)
		}
	})
	t.Run("a host that refuses to start programs in control groups runs machines without", func(t *testing.T) {
		d := emulating(t, program(t, current+"echo it ran >&2; exit 1"))
		d.home = homeIn(host.Cgroup(t.TempDir())) // a directory, and no group
		refused(t, d, anySpec(t), "it ran", "QEMU's own")
	})
}
