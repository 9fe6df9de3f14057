package vm_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm/fake"
)

var running = api.VMCreate{Name: "web", Start: true}

func TestLife(t *testing.T) {
	t.Run("a VM that was created, started, stopped and deleted leaves nothing", func(t *testing.T) {
		h := newHouse(t)
		v := h.must(h.create(api.VMCreate{Name: "web"}))
		if v.State != banger.Created || v.Pending {
			t.Fatalf("state %s, pending %v", v.State, v.Pending)
		}
		if v = h.must(h.vms.Start(t.Context(), "web", opstate.Discard)); v.State != banger.Running {
			t.Fatalf("state %s", v.State)
		}
		if v = h.must(h.vms.Stop(t.Context(), "web", 0, opstate.Discard)); v.State != banger.Stopped || v.LastError != "" {
			t.Fatalf("state %s, last error %q", v.State, v.LastError)
		}
		if v = h.must(h.vms.Start(t.Context(), "web", opstate.Discard)); v.State != banger.Running {
			t.Fatalf("state after the second start: %s", v.State)
		}
		if err := h.vms.Delete(t.Context(), "web", true, opstate.Discard); err != nil {
			t.Fatal(err)
		}
		h.empty()
	})
	t.Run("starting a running VM and stopping a stopped one change nothing", func(t *testing.T) {
		h := newHouse(t)
		h.must(h.create(running))
		h.must(h.vms.Start(t.Context(), "web", opstate.Discard))
		h.must(h.vms.Stop(t.Context(), "web", 0, opstate.Discard))
		if v := h.must(h.vms.Stop(t.Context(), "web", 0, opstate.Discard)); v.State != banger.Stopped {
			t.Fatalf("state %s", v.State)
		}
	})
	t.Run("a guest that powers off by itself is stopped, one that crashes has failed, and both start again", func(t *testing.T) {
		h := newHouse(t)
		v := h.must(h.create(running))
		h.host.PowerOff(v.ID)
		h.wait("web", banger.Stopped)
		h.must(h.vms.Start(t.Context(), "web", opstate.Discard))
		h.host.Crash(v.ID)
		h.wait("web", banger.Failed)
		if v := h.must(h.vms.Get(t.Context(), "web")); v.LastError == "" {
			t.Error("a crash left no last error")
		}
		h.must(h.vms.Start(t.Context(), "web", opstate.Discard))
	})
	t.Run("a running VM is not deleted without force", func(t *testing.T) {
		h := newHouse(t)
		h.must(h.create(running))
		err := h.vms.Delete(t.Context(), "web", false, opstate.Discard)
		if !errkind.Is(err, api.KindPrecondition) || errkind.Hint(err) == "" {
			t.Fatalf("got %v, hint %q", err, errkind.Hint(err))
		}
		if h.state("web") != banger.Running {
			t.Fatal("the refused delete changed the VM")
		}
	})
}

func TestBadRequests(t *testing.T) {
	h := newHouse(t)
	h.must(h.create(api.VMCreate{Name: "taken"}))
	for _, c := range []struct {
		what string
		p    api.VMCreate
		kind api.ErrorKind
	}{
		{"a name that is no DNS label", api.VMCreate{Name: "Web_1"}, api.KindInvalid},
		{"a name that is in use", api.VMCreate{Name: "taken"}, api.KindExists},
		{"more CPUs than the host has", api.VMCreate{VCPU: 3}, api.KindInvalid},
		{"less memory than a guest needs", api.VMCreate{MemMiB: 8}, api.KindInvalid},
		{"an unknown VMM", api.VMCreate{VMM: "xen"}, api.KindInvalid},
		{"an environment entry without =", api.VMCreate{Env: []string{"A"}}, api.KindInvalid},
		{"an init that is no path", api.VMCreate{Init: "systemd"}, api.KindInvalid},
		{"a disk smaller than the image's", api.VMCreate{RootSize: 1}, api.KindInvalid},
	} {
		t.Run(c.what+" is refused with a hint and leaves nothing", func(t *testing.T) {
			_, err := h.create(c.p)
			if errkind.Of(err) != c.kind {
				t.Fatalf("got %v of kind %q", err, errkind.Of(err))
			}
			if vms, err := h.vms.List(t.Context()); err != nil || len(vms) != 1 {
				t.Fatalf("VMs: %v %v", vms, err)
			}
		})
	}
}

func TestUnfitHost(t *testing.T) {
	h := newHouse(t)
	h.host = fake.NewHost(fake.Config{Unfit: []preflight.Problem{{Detail: "QEMU is not installed", Fix: "install it"}}})
	h.restart("")
	t.Run("a VM that is to start is refused before its image is looked for", func(t *testing.T) {
		_, err := h.create(api.VMCreate{Start: true, Image: "none"})
		if !errkind.Is(err, api.KindUnavailable) || errkind.Hint(err) != "install it" {
			t.Errorf("got %v of kind %s, hint %q", err, errkind.Of(err), errkind.Hint(err))
		}
	})
	t.Run("one that is not to start is created, and does not start", func(t *testing.T) {
		vm := h.must(h.create(api.VMCreate{}))
		if _, err := h.vms.Start(t.Context(), vm.Name, opstate.Discard); !errkind.Is(err, api.KindUnavailable) {
			t.Errorf("got %v", err)
		}
	})
}

func TestFaults(t *testing.T) {
	for _, step := range newHouse(t).steps {
		for _, at := range []string{step, step + ".done"} {
			t.Run("a create that fails at "+at+" leaves nothing, and the same create then succeeds", func(t *testing.T) {
				h := newHouse(t)
				h.restart(at + "=error")
				_, err := h.create(running)
				if err == nil || !strings.Contains(err.Error(), "failpoint "+at) {
					t.Fatalf("got %v", err)
				}
				h.empty()
				h.restart("")
				h.must(h.create(running))
			})
			t.Run("a start that fails at "+at+" leaves the VM as it was", func(t *testing.T) {
				h := newHouse(t)
				h.must(h.create(api.VMCreate{Name: "web"}))
				h.restart(at + "=error")
				if _, err := h.vms.Start(t.Context(), "web", opstate.Discard); err == nil {
					t.Fatal("the fault was not reported")
				}
				if s := h.state("web"); s != banger.Created || len(h.host.Running()) != 0 {
					t.Fatalf("state %s, machines %v", s, h.host.Running())
				}
				h.restart("")
				h.must(h.vms.Start(t.Context(), "web", opstate.Discard))
			})
		}
	}
}

func TestCancel(t *testing.T) {
	for _, step := range newHouse(t).steps {
		t.Run("a create that is canceled at "+step+" leaves nothing", func(t *testing.T) {
			h := newHouse(t)
			h.restart(step + "=delay:1h")
			op, err := h.vms.BeginCreate(running)
			if err != nil {
				t.Fatal(err)
			}
			if err := h.ops.Cancel(t.Context(), op.ID); err != nil {
				t.Fatal(err)
			}
			if got, err := h.ops.Get(op.ID); err != nil || got.State != api.OperationCanceled {
				t.Fatalf("operation %s, %v", got.State, err)
			}
			h.empty()
		})
	}
}

func TestRestart(t *testing.T) {
	t.Run("a running VM is adopted with its machine", func(t *testing.T) {
		h := newHouse(t)
		v := h.must(h.create(running))
		pid := h.vms.Run(v.ID).Machine.Handle().PID
		h.restart("")
		r := h.vms.Run(v.ID)
		if h.state("web") != banger.Running || r == nil || r.Machine.Handle().PID != pid || r.Hello.BootID == "" {
			t.Fatalf("state %s, run %+v", h.state("web"), r)
		}
		h.must(h.vms.Stop(t.Context(), "web", 0, opstate.Discard))
	})
	t.Run("a VM whose machine died meanwhile is stopped and starts again", func(t *testing.T) {
		h := newHouse(t)
		v := h.must(h.create(running))
		h.vms.Close()
		h.host.Crash(v.ID)
		h.open("")
		if h.state("web") != banger.Stopped {
			t.Fatalf("state %s", h.state("web"))
		}
		h.must(h.vms.Start(t.Context(), "web", opstate.Discard))
	})
	t.Run("a VM left starting with a live machine is stopped, its machine gone", func(t *testing.T) {
		h := newHouse(t)
		v := h.must(h.create(running))
		h.vms.Close()
		h.force(v.ID, banger.Stopped, banger.Starting)
		h.open("")
		if h.state("web") != banger.Stopped || len(h.host.Running()) != 0 {
			t.Fatalf("state %s, machines %v", h.state("web"), h.host.Running())
		}
		h.must(h.vms.Start(t.Context(), "web", opstate.Discard))
	})
	t.Run("a stop that was interrupted is finished, and the guest is asked to power off", func(t *testing.T) {
		h := newHouse(t)
		v := h.must(h.create(running))
		h.vms.Close()
		h.force(v.ID, banger.Stopping)
		h.open("")
		h.wait("web", banger.Stopped)
		if n := h.powerOffs.Load(); n != 1 {
			t.Errorf("the guest was asked %d times to power off", n)
		}
		h.must(h.vms.Start(t.Context(), "web", opstate.Discard))
	})
	t.Run("a VM whose creation was interrupted is removed", func(t *testing.T) {
		h := newHouse(t)
		v := h.must(h.create(running))
		h.vms.Close()
		_, err := h.store.UpdateVM(t.Context(), v.ID, func(v *banger.VM) error { v.Pending = true; return nil })
		if err != nil {
			t.Fatal(err)
		}
		h.open("")
		h.empty()
	})
	t.Run("a directory that no record claims is removed with its machine", func(t *testing.T) {
		h := newHouse(t)
		v := h.must(h.create(running))
		h.vms.Close()
		if err := h.store.DeleteVM(t.Context(), v.ID); err != nil {
			t.Fatal(err)
		}
		h.open("")
		h.empty()
	})
}

// force writes states one after the other, as a crash would leave the last.
func (h *house) force(id banger.VMID, states ...banger.State) {
	h.t.Helper()
	for _, s := range states {
		if _, err := h.store.UpdateVM(h.t.Context(), id, func(v *banger.VM) error { v.State = s; return nil }); err != nil {
			h.t.Fatal(err)
		}
	}
}

func TestWorkspaceGuard(t *testing.T) {
	prepare := func(t *testing.T) *house {
		h := newHouse(t)
		h.must(h.create(running))
		s, err := h.vms.PrepareWorkspace(t.Context(), "web", banger.Workspace{GuestPath: "/root/w", BaseTree: "base"})
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		return h
	}
	refused := func(t *testing.T, h *house, want string) {
		t.Helper()
		err := h.vms.Delete(t.Context(), "web", false, opstate.Discard)
		if !errkind.Is(err, api.KindPrecondition) || !strings.Contains(err.Error()+errkind.Hint(err), want) {
			t.Fatalf("got %v; %s", err, errkind.Hint(err))
		}
	}
	t.Run("a stopped VM with unexported changes is not deleted without force", func(t *testing.T) {
		h := prepare(t)
		h.tree.Store("changed")
		h.must(h.vms.Stop(t.Context(), "web", 0, opstate.Discard))
		refused(t, h, "workspace export")
	})
	t.Run("after an export it is deleted", func(t *testing.T) {
		h := prepare(t)
		h.tree.Store("changed")
		if err := h.vms.WorkspaceExported(t.Context(), "web", "changed"); err != nil {
			t.Fatal(err)
		}
		h.must(h.vms.Stop(t.Context(), "web", 0, opstate.Discard))
		if err := h.vms.Delete(t.Context(), "web", false, opstate.Discard); err != nil {
			t.Fatal(err)
		}
		h.empty()
	})
	t.Run("a VM that crashed may hold changes, so it is not deleted without force", func(t *testing.T) {
		h := prepare(t)
		h.host.Crash(h.must(h.vms.Get(t.Context(), "web")).ID)
		h.wait("web", banger.Failed)
		refused(t, h, "did not stop cleanly")
	})
	t.Run("a guest path that is not absolute and clean is refused", func(t *testing.T) {
		h := newHouse(t)
		h.must(h.create(running))
		for _, p := range []string{"", "w", "/", "/root/../etc", "/root/w/"} {
			if _, err := h.vms.PrepareWorkspace(t.Context(), "web", banger.Workspace{GuestPath: p}); !errkind.Is(err, api.KindInvalid) {
				t.Errorf("%q: %v", p, err)
			}
		}
	})
}

func TestConcurrentCreates(t *testing.T) {
	t.Run("of twenty creates with one name, one succeeds and nineteen are told that it exists", func(t *testing.T) {
		h := newHouse(t)
		var wg sync.WaitGroup
		errs := make([]error, 20)
		for i := range errs {
			wg.Go(func() { _, errs[i] = h.create(running) })
		}
		wg.Wait()
		var ok, exists int
		for _, err := range errs {
			switch {
			case err == nil:
				ok++
			case errkind.Is(err, api.KindExists):
				exists++
			}
		}
		if ok != 1 || exists != 19 || len(h.host.Running()) != 1 {
			t.Fatalf("%d succeeded, %d exist, machines %v: %v", ok, exists, h.host.Running(), errors.Join(errs...))
		}
	})
	t.Run("twenty creates with different names all succeed", func(t *testing.T) {
		h := newHouse(t)
		var wg sync.WaitGroup
		errs := make([]error, 20)
		for i := range errs {
			wg.Go(func() { _, errs[i] = h.create(api.VMCreate{Name: fmt.Sprintf("web-%d", i), Start: true}) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil || len(h.host.Running()) != 20 {
			t.Fatalf("machines %v: %v", h.host.Running(), err)
		}
	})
}
