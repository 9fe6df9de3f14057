package fake_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/fake"
	"github.com/banger-vm/banger/internal/vmm/vmmtest"
)

// newHost returns a computer whose guests speak the suite's protocol.
func newHost() *fake.Host {
	var host *fake.Host
	var guests vmmtest.Guests
	host = fake.NewHost(fake.Config{
		Console: "booting\n",
		Agent: func(ctx context.Context, spec vmm.Spec, conn net.Conn) {
			guests.Of(spec).Serve(ctx, conn, func(text string) { host.Print(spec.ID, text) }, func(how string) {
				end := map[string]func(banger.VMID){"power-off": host.PowerOff, "reboot": host.Reboot, "panic": host.Panic}[how]
				end(spec.ID)
			})
		},
	})
	return host
}

func newSpec(t *testing.T) vmm.Spec {
	dir := t.TempDir()
	spec := vmm.Spec{
		ID: banger.NewID[banger.VMID](), Name: "web", Dir: dir, RunDir: t.TempDir(), VCPU: 1, MemMiB: 256,
		Kernel: filepath.Join(dir, "vmlinux"), Initrd: filepath.Join(dir, "initrd"),
	}
	for _, path := range []string{spec.Kernel, spec.Initrd} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return spec
}

func TestFakeConforms(t *testing.T) {
	host := newHost()
	vmmtest.Run(t, vmmtest.Harness{
		Patience: 10 * time.Second,
		New:      func(*testing.T) vmm.Driver { return host.Driver() },
		Spec:     newSpec,
		Crash:    func(_ *testing.T, h vmm.Handle) { host.Crash(h.ID) },
		Left: func(_ *testing.T, h vmm.Handle) []string {
			if host.Lives(h) {
				return []string{"process"}
			}
			return nil
		},
	})
	if left := host.Running(); len(left) > 0 {
		t.Errorf("machines left: %v", left)
	}
}

func TestFaults(t *testing.T) {
	fault := errors.New("out of luck")
	for _, point := range fake.StartPoints() {
		t.Run("a fault at "+string(point)+" fails the start and leaves nothing", func(t *testing.T) {
			host, spec := newHost(), newSpec(t)
			host.Fail(point, fault)
			if _, err := host.Driver().Start(t.Context(), spec); !errors.Is(err, fault) {
				t.Fatalf("got %v, want the fault", err)
			}
			left, err := os.ReadDir(spec.RunDir)
			if err != nil || len(left) > 0 || len(host.Running()) > 0 {
				t.Errorf("left %v, %v, %v", left, host.Running(), err)
			}
			host.Fail(point, nil)
			if _, err := host.Driver().Start(t.Context(), spec); err != nil {
				t.Errorf("start without the fault: %v", err)
			}
		})
		t.Run("a start held at "+string(point)+" goes on when released, and ends with its context", func(t *testing.T) {
			host := newHost()
			d := host.Driver()
			release := host.Hold(point)
			ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
			defer cancel()
			if _, err := d.Start(ctx, newSpec(t)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("held start: %v", err)
			}
			started := make(chan error)
			go func() {
				_, err := d.Start(t.Context(), newSpec(t))
				started <- err
			}()
			release()
			if err := <-started; err != nil {
				t.Errorf("released start: %v", err)
			}
		})
	}
	t.Run("a fault of a kill is its error, and the machine lives", func(t *testing.T) {
		host := newHost()
		m, err := host.Driver().Start(t.Context(), newSpec(t))
		if err != nil {
			t.Fatal(err)
		}
		host.Fail(fake.PointKilled, fault)
		if err := m.Kill(t.Context()); !errors.Is(err, fault) || !host.Lives(m.Handle()) {
			t.Errorf("got %v, lives %v", err, host.Lives(m.Handle()))
		}
	})
}
