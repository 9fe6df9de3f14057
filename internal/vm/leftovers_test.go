package vm_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/capabilities"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/store/storetest"
	"github.com/banger-vm/banger/internal/vm"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vmm"
	"golang.org/x/sys/unix"
)

// leftovers returns what there is, and fails unless there is one for each text.
func leftovers(t *testing.T, s *vm.Service, texts ...string) []preflight.Problem {
	t.Helper()
	found, err := s.Leftovers(t.Context(), capabilities.ReadHandle)
	if err != nil || len(found) != len(texts) {
		t.Fatalf("found %+v, %v; want %q", found, err, texts)
	}
	for i, p := range found {
		if !strings.Contains(p.Detail, texts[i]) || p.Fix == "" || !p.Minor {
			t.Errorf("found %+v, want %q", p, texts[i])
		}
	}
	return found
}

func mend(t *testing.T, p preflight.Problem) {
	t.Helper()
	if done, err := p.Mend(t.Context()); err != nil || done == "" {
		t.Fatalf("%q %v", done, err)
	}
}

func TestLeftovers(t *testing.T) {
	const unknown = "0123456789ab"
	t.Run("running, stopped and created VMs leave none", func(t *testing.T) {
		h := newHouse(t)
		h.must(h.create(running))
		h.must(h.create(api.VMCreate{Name: "stopped", Start: true}))
		h.must(h.vms.Kill(t.Context(), "stopped", 0, opstate.Discard))
		h.must(h.create(api.VMCreate{Name: "created"}))
		leftovers(t, h.vms)
	})
	t.Run("directories without a record are found and removed, and nothing else is", func(t *testing.T) {
		h := newHouse(t)
		d := dirs(h.dir)
		for _, dir := range []string{d.VMDir(unknown), d.VMRunDir(unknown), filepath.Join(d.VMsDir(), "notes")} {
			if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		mend(t, leftovers(t, h.vms, d.VMRunDir(unknown)+" and the directory "+d.VMDir(unknown))[0])
		leftovers(t, h.vms)
		if _, err := os.Stat(filepath.Join(d.VMsDir(), "notes", "file")); err != nil {
			t.Error(err)
		}
	})
	t.Run("sockets of a VM that does not run are found and removed, unless it was started meanwhile", func(t *testing.T) {
		h := newHouse(t)
		v := h.must(h.create(running))
		h.must(h.vms.Kill(t.Context(), "web", 0, opstate.Discard))
		runDir := dirs(h.dir).VMRunDir(v.ID)
		if err := errors.Join(os.MkdirAll(runDir, 0o700), os.WriteFile(filepath.Join(runDir, "agent.sock"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		found := leftovers(t, h.vms, `vm "web" is stopped, but there is the directory `+runDir)
		h.force(v.ID, banger.Starting)
		if done, err := found[0].Mend(t.Context()); err != nil || !strings.HasPrefix(done, "nothing") {
			t.Errorf("%q %v", done, err)
		}
		if _, err := os.Stat(runDir); err != nil {
			t.Fatal(err)
		}
		if _, err := h.store.UpdateVM(t.Context(), v.ID, func(v *banger.VM) error { v.State = banger.Stopped; return nil }); err != nil {
			t.Fatal(err)
		}
		mend(t, leftovers(t, h.vms, `"web"`)[0])
		leftovers(t, h.vms)
	})
}

// finder is a driver whose one machine is a process that the test started.
type finder struct {
	vmm.Driver
	proc  *os.Process
	of    banger.VMID
	ended chan struct{}
}

func (f *finder) Find(_ context.Context, id banger.VMID, _, _ string) (vmm.Handle, error) {
	if _, err := host.StartTime(f.proc.Pid); err != nil || id != f.of {
		return vmm.Handle{}, errkind.New(api.KindNotFound, "none")
	}
	return vmm.Handle{Driver: "finder", PID: f.proc.Pid}, nil
}

func (f *finder) Adopt(context.Context, vmm.Handle) (vmm.Machine, error) {
	return finderMachine{f: f}, nil
}

type finderMachine struct {
	vmm.Machine
	f *finder
}

func (m finderMachine) Kill(context.Context) error {
	err := m.f.proc.Kill()
	<-m.f.ended
	return err
}

func TestLeftoverProcess(t *testing.T) {
	const id = "0123456789ab"
	d := dirs(t.TempDir())
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	proc, err := host.Detached{Argv: []string{"sh", "-c", `read x <"$0"`, fifo, d.VMRunDir(id) + "/sock"}, Dir: "/"}.Start()
	if err != nil {
		t.Fatal(err)
	}
	f := &finder{proc: proc, of: id, ended: make(chan struct{})}
	go func() { proc.Wait(); close(f.ended) }() //nolint:errcheck // it is killed
	log := slog.New(slog.DiscardHandler)
	drivers := map[string]vmm.Driver{"finder": f}
	s := vm.New(vm.Config{
		Store: storetest.New(t), Drivers: drivers, Dirs: d, Log: log,
		Chain: capability.NewChain([]capability.Capability{&capabilities.Machine{Drivers: drivers}}, nil, log),
	})
	defer s.Close()
	t.Run("a process of a VM without record and directories is found and ended", func(t *testing.T) {
		mend(t, leftovers(t, s, fmt.Sprintf("the process %d", proc.Pid))[0])
		leftovers(t, s)
		<-f.ended
	})
}
