package qemu

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/suitetest"
	"github.com/banger-vm/banger/internal/vmm/vmmproc"
	"github.com/banger-vm/banger/internal/vmm/vmmtest"
	"golang.org/x/sys/unix"
)

// patience bounds a wait for an emulated guest on a busy machine.
const patience = 2 * time.Minute

// TestRealGuests runs the conformance suite, and what only QEMU can do wrong, with Debian's kernel.
func TestRealGuests(t *testing.T) {
	if _, err := host.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip(err)
	}
	kernel, initrd := suitetest.Guest(t)
	accel := vmm.AccelTCG
	if suitetest.InLab() {
		accel = vmm.AccelKVM
	}
	group := testGroup(t)
	spec := func(t *testing.T) vmm.Spec { return newSpec(t, kernel, initrd) }
	newDriver := func(t *testing.T) vmm.Driver {
		return New(t.Context(), Config{
			Accel: accel, KVM: host.KVM{Dir: t.TempDir(), QEMU: "qemu-system-x86_64"}.Usable, Group: group, Log: slog.New(slog.DiscardHandler),
		})
	}
	vmmtest.Run(t, vmmtest.Harness{
		New: newDriver, Spec: spec, Patience: patience, Left: left,
		Crash: func(t *testing.T, h vmm.Handle) {
			if err := unix.Kill(h.PID, unix.SIGKILL); err != nil {
				t.Error(err)
			}
		},
	})
	testMonitor(t, newDriver(t).(*Driver), spec)
	t.Run("a machine cannot gain privileges, and its system calls are filtered", func(t *testing.T) {
		m := startReal(t, newDriver(t).(*Driver), spec(t))
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.Handle().PID)) // proc_pid_status(5)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("no %q in\n%s", want, status)
			}
		}
	})
	t.Run("a machine stays within its size", func(t *testing.T) { testLimits(t, newDriver(t).(*Driver), spec(t)) })
}

// testLimits shows that a machine has no more of the host than its size asks for.
func testLimits(t *testing.T, d *Driver, spec vmm.Spec) {
	if lacks := d.cfg.Group.Lacks(); len(lacks) > 0 {
		t.Skipf("the host's control groups of version 2 have no %s", strings.Join(lacks, ", "))
	}
	m := startReal(t, d, spec)
	l := vmmproc.Limits(spec)
	for file, want := range map[string]string{
		"cpu.max": fmt.Sprintf("%d 100000", l.CPUs*100000), "memory.max": fmt.Sprint(l.Memory), "pids.max": fmt.Sprint(l.Tasks),
	} {
		got, err := os.ReadFile(filepath.Join(string(vmmproc.GroupOf(m.Handle())), file))
		if err != nil || strings.TrimSpace(string(got)) != want {
			t.Errorf("%s is %q, want %s; %v", file, got, want, err)
		}
	}
}

// left lists what there is of a machine outside its directories.
func left(_ *testing.T, h vmm.Handle) []string {
	var found []string
	if start, err := host.StartTime(h.PID); err == nil && start == h.StartTime {
		found = append(found, "process")
	}
	if group := vmmproc.GroupOf(h); group != "" {
		if _, err := os.Stat(string(group)); err == nil {
			found = append(found, string(group))
		}
	}
	return found
}
