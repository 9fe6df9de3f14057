package qemu

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/vmm"
	"golang.org/x/sys/unix"
)

// startReal starts a machine that is killed when the test ends.
func startReal(t *testing.T, d *Driver, spec vmm.Spec) *machine {
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
	return m.(*machine)
}

// tell sends a line to the suite's guest and returns its first answer, empty when it ends the connection.
func tell(t *testing.T, m vmm.Machine, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := m.DialAgent(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience)) //nolint:errcheck // a socket takes it
	fmt.Fprintln(conn, line)
	answer, _ := bufio.NewReader(conn).ReadString('\n') // a guest that ends itself gives none
	return strings.TrimSpace(answer)
}

// exitOf waits for the machine's end.
func exitOf(t *testing.T, m vmm.Machine) vmm.Exit {
	t.Helper()
	select {
	case <-m.Exited():
	case <-time.After(patience):
		t.Fatal("the machine does not end")
	}
	return m.Exit()
}

// loseMonitor breaks a machine's QMP connection.
func loseMonitor(m *machine) {
	m.monitor.Close()
	<-m.heard
}

// testMonitor is what QMP changes for real guests.
func testMonitor(t *testing.T, d *Driver, spec func(*testing.T) vmm.Spec) {
	t.Run("a kernel that panics at boot has its panic in the reason", func(t *testing.T) {
		s := spec(t)
		s.Args = "rdinit=/vm.json init=/vm.json"
		if e := exitOf(t, startReal(t, d, s)); e.Clean || !strings.HasPrefix(e.Reason, "guest kernel panicked: ") {
			t.Errorf("exit %+v", e)
		}
	})
	t.Run("a machine works without its QMP connection, and its end is understood", func(t *testing.T) {
		m := startReal(t, d, spec(t))
		loseMonitor(m)
		if got := tell(t, m, "echo still here"); got != "still here" {
			t.Errorf("the guest answers %q", got)
		}
		tell(t, m, "reboot")
		if e := exitOf(t, m); e.Clean || e.Reason != "guest rebooted" {
			t.Errorf("exit %+v", e)
		}
	})
	t.Run("an adopted machine is heard too", func(t *testing.T) {
		first := startReal(t, d, spec(t))
		loseMonitor(first) // as when its daemon ends: QEMU serves one listener
		adopted, err := d.Adopt(t.Context(), first.Handle())
		if err != nil {
			t.Fatal(err)
		}
		tell(t, adopted, "power-off")
		if e := exitOf(t, adopted); !e.Clean || adopted.(*machine).told == "" {
			t.Errorf("exit %+v, told %q", e, adopted.(*machine).told)
		}
	})
	t.Run("QEMU that is told to end by a signal is no guest that powered off", func(t *testing.T) {
		m := startReal(t, d, spec(t))
		tell(t, m, "echo up") // QEMU takes the signal when its main loop runs
		if err := unix.Kill(m.Handle().PID, unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if e := exitOf(t, m); e.Clean || !strings.Contains(e.Reason, "told by a signal to end: ") {
			t.Errorf("exit %+v", e)
		}
	})
	t.Run("a machine is found by its directories where a crash came before its handle was stored", func(t *testing.T) {
		m := startReal(t, d, spec(t))
		h, err := d.Find(t.Context(), m.Handle().ID, m.Handle().Dir, m.Handle().RunDir)
		if err != nil || fmt.Sprint(h) != fmt.Sprint(m.Handle()) {
			t.Fatalf("found %+v, %v; want %+v", h, err, m.Handle())
		}
		adopted, err := d.Adopt(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		if err := adopted.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := host.StartTime(h.PID); err == nil {
			t.Error("it lives")
		}
		if entries, err := os.ReadDir(h.RunDir); err != nil || len(entries) > 0 {
			t.Errorf("left %v, %v", entries, err)
		}
	})
}
