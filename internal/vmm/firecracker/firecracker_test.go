package firecracker

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/firecracker/fcproc"
	"github.com/banger-vm/banger/internal/vmm/firecracker/fctest"
	"github.com/banger-vm/banger/internal/vmm/vmmproc"
	"github.com/banger-vm/banger/internal/vmm/vmmtest"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	fctest.Main()
	os.Exit(m.Run())
}

func kvmWorks(context.Context) error { return nil }

// direct is the configuration of machines without a jailer.
func direct(binary string) Config {
	return Config{
		Programs: fcproc.Config{Firecracker: binary, UseJailer: fcproc.JailerOff}, KVM: kvmWorks, Log: slog.New(slog.DiscardHandler),
	}
}

// shortDir returns a directory whose path leaves room for the name of a socket.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newSpec is a spec of a VM whose kernel is as good as the double can tell, with a disk of its own and a shared one.
func newSpec(t *testing.T) vmm.Spec {
	t.Helper()
	dir := shortDir(t)
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return vmm.Spec{
		ID: banger.NewID[banger.VMID](), Name: "web", Dir: dir, RunDir: shortDir(t), VCPU: 1, MemMiB: 128,
		Kernel: write("vmlinux", "\x7fELF", 0o444), Initrd: write("initrd", "", 0o600),
		Disks: []vmm.Disk{
			{Path: write("root.raw", "root", 0o600), Format: "raw"}, {Path: write("modules", "modules", 0o444), Format: "raw", ReadOnly: true},
		},
	}
}

// left lists what there is of a machine outside the logs and files of its VM.
func left(_ *testing.T, h vmm.Handle) []string {
	var found []string
	if start, err := host.StartTime(h.PID); err == nil && start == h.StartTime {
		found = append(found, "process")
	}
	for _, path := range []string{string(vmmproc.GroupOf(h)), filepath.Join(h.Dir, "jail")} {
		if _, err := os.Stat(path); path != "" && err == nil {
			found = append(found, path)
		}
	}
	return found
}

func crash(t *testing.T, h vmm.Handle) {
	if err := unix.Kill(h.PID, unix.SIGKILL); err != nil {
		t.Error(err)
	}
}

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

// TestConforms runs the conformance suite on the double.
func TestConforms(t *testing.T) {
	binary, _ := fctest.Install(t)
	cfg := direct(binary)
	cfg.Group = testGroup(t)
	conform(t, cfg, newSpec, 30*time.Second)
}

// TestJailedConforms runs it on doubles in jails, which are given away only by root.
func TestJailedConforms(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files to a jail's user")
	}
	binary, jailer := fctest.Install(t)
	cfg := direct(binary)
	cfg.Programs.Jailer, cfg.Programs.UseJailer, cfg.Programs.Root = jailer, fcproc.JailerOn, true
	conform(t, cfg, newSpec, 30*time.Second)
}

// conform runs the suite, and what is Firecracker's own.
func conform(t *testing.T, cfg Config, spec func(*testing.T) vmm.Spec, patience time.Duration) {
	h := vmmtest.Harness{
		New: func(t *testing.T) vmm.Driver { return New(t.Context(), cfg) }, Spec: spec, Patience: patience, Left: left, Crash: crash,
	}
	vmmtest.Run(t, h)
	t.Run("a guest whose init halts is ended, as one that powered off", func(t *testing.T) {
		m := startMachine(t, New(t.Context(), cfg), spec(t), patience)
		tell(t, m, "halt", patience)
		if e := exitOf(t, m, patience); !e.Clean || e.Reason != "guest powered off" {
			t.Errorf("exit %+v", e)
		}
	})
	t.Run("a machine is found by its VM where a crash came before its handle was stored", func(t *testing.T) {
		d := New(t.Context(), cfg)
		m := startMachine(t, d, spec(t), patience)
		want := m.Handle()
		h, err := d.Find(t.Context(), want.ID, want.Dir, want.RunDir)
		if err != nil || h.PID != want.PID || h.StartTime != want.StartTime || h.RunDir != want.RunDir {
			t.Fatalf("found %+v, %v; want %+v", h, err, want)
		}
		if _, err := d.Find(t.Context(), banger.NewID[banger.VMID](), want.Dir, want.RunDir); err == nil {
			t.Error("another VM's machine is found")
		}
	})
}

// startMachine starts a machine that is killed when the test ends.
func startMachine(t *testing.T, d *Driver, spec vmm.Spec, patience time.Duration) vmm.Machine {
	t.Helper()
	m, err := d.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := m.Kill(ctx); err != nil {
			t.Error(err)
		}
	})
	return m
}

// tell sends a line to the suite's guest.
func tell(t *testing.T, m vmm.Machine, line string, patience time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := m.DialAgent(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintln(conn, line); err != nil {
		t.Fatal(err)
	}
}

// exitOf waits for the machine's end.
func exitOf(t *testing.T, m vmm.Machine, patience time.Duration) vmm.Exit {
	t.Helper()
	select {
	case <-m.Exited():
	case <-time.After(patience):
		t.Fatal("the machine does not end")
	}
	return m.Exit()
}
