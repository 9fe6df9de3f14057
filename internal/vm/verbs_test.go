package vm_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vmm/fake"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func (h *house) set(p api.VMSet) (banger.VM, error) {
	p.Ref.Ref = "web"
	return h.vms.Set(h.t.Context(), p, opstate.Discard)
}

func TestRestartVerb(t *testing.T) {
	t.Run("a running VM has another machine afterwards, a stopped one has one", func(t *testing.T) {
		h := newHouse(t)
		v := h.must(h.create(running))
		before := h.vms.Run(v.ID).Machine.Handle().PID
		for range 2 {
			h.must(h.vms.Restart(t.Context(), "web", 0, opstate.Discard))
			if now := h.vms.Run(v.ID).Machine.Handle().PID; now == before || h.state("web") != banger.Running {
				t.Errorf("pid %d, before %d; state %s", now, before, h.state("web"))
			}
			h.must(h.vms.Stop(t.Context(), "web", 0, opstate.Discard))
		}
	})
	t.Run("when the start fails, the VM is stopped and the error says so", func(t *testing.T) {
		h := newHouse(t)
		h.must(h.create(running))
		h.restart("machine.attach=error")
		_, err := h.vms.Restart(t.Context(), "web", 0, opstate.Discard)
		if err == nil || !strings.Contains(err.Error(), "it was stopped, and does not start") || h.state("web") != banger.Stopped {
			t.Errorf("state %s, error %v", h.state("web"), err)
		}
	})
}

func TestCanceledStop(t *testing.T) {
	h := newHouse(t)
	v := h.must(h.create(running))
	h.stubborn.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := h.vms.Stop(ctx, "web", time.Hour, opstate.Discard)
		done <- err
	}()
	h.eventually("the guest is asked", func() bool { return h.powerOffs.Load() == 1 })
	cancel()
	if err := <-done; err == nil || h.state("web") != banger.Running || len(h.host.Running()) != 1 {
		t.Errorf("state %s, machines %v, error %v", h.state("web"), h.host.Running(), err)
	}
	h.host.PowerOff(v.ID) // the guest is done at last
	h.wait("web", banger.Stopped)
}

func TestSet(t *testing.T) {
	no, minute, configured := false, int64(60_000), int64(-1)
	t.Run("a stopped VM is changed whole, and starts as it was changed", func(t *testing.T) {
		h := newHouse(t)
		h.must(h.create(api.VMCreate{Name: "web", Env: []string{"A=1", "B=2"}}))
		v := h.must(h.set(api.VMSet{
			VCPU: 2, MemMiB: 512, RootSize: 1 << 20, DiskSize: 2 << 20, NAT: &no, Env: []string{"B=3", "C=x=y"}, UnsetEnv: []string{"A"},
			AutoStopMS: &minute,
		}))
		s := v.Spec
		if s.VCPU != 2 || s.MemMiB != 512 || s.RootSize != 1<<20 || s.WorkSize != 2<<20 || s.NAT || *s.AutoStop != time.Minute {
			t.Errorf("got %+v", s)
		}
		if d := cmp.Diff([]string{"B=3", "C=x=y"}, s.Env); d != "" {
			t.Error(d)
		}
		h.must(h.vms.Start(t.Context(), "web", opstate.Discard))
		if spec := h.vms.Run(v.ID).Spec; spec.VCPU != 2 || spec.MemMiB != 512 || !spec.NIC.Restrict {
			t.Errorf("machine started with %+v", spec)
		}
		v = h.must(h.set(api.VMSet{AutoStopMS: &configured}))
		if v.Spec.AutoStop != nil {
			t.Errorf("auto-stop %v", v.Spec.AutoStop)
		}
	})
	t.Run("a disk that was used is grown by the next start", func(t *testing.T) {
		h := newHouse(t)
		v := h.must(h.create(running))
		h.must(h.set(api.VMSet{DiskSize: 1 << 21, Restart: true}))
		if st, err := os.Stat(filepath.Join(h.vms.Dir(v.ID), "work.raw")); err != nil || st.Size() != 1<<21 {
			t.Errorf("%v %v", st, err)
		}
	})
	t.Run("a running VM is restarted only when that is wished, and not for what needs no start", func(t *testing.T) {
		h := newHouse(t)
		v := h.must(h.create(running))
		pid := h.vms.Run(v.ID).Machine.Handle().PID
		_, err := h.set(api.VMSet{VCPU: 2})
		if !errkind.Is(err, api.KindPrecondition) || !strings.Contains(errkind.Hint(err), "--restart") {
			t.Errorf("got %v", err)
		}
		h.must(h.set(api.VMSet{AutoStopMS: &minute, VCPU: 1})) // it has one
		if now := h.vms.Run(v.ID).Machine.Handle().PID; now != pid {
			t.Error("it was restarted")
		}
		if v := h.must(h.set(api.VMSet{VCPU: 2, Restart: true})); v.State != banger.Running || v.Spec.VCPU != 2 {
			t.Errorf("state %s, %d vCPUs", v.State, v.Spec.VCPU)
		}
		if now := h.vms.Run(v.ID).Machine.Handle().PID; now == pid {
			t.Error("it was not restarted")
		}
	})
	t.Run("a new name is taken if nobody has it", func(t *testing.T) {
		h := newHouse(t)
		h.must(h.create(api.VMCreate{Name: "web"}))
		h.must(h.create(api.VMCreate{Name: "db"}))
		if _, err := h.set(api.VMSet{Name: "db"}); !errkind.Is(err, api.KindExists) {
			t.Errorf("got %v", err)
		}
		if v := h.must(h.set(api.VMSet{Name: "www"})); v.Name != "www" {
			t.Errorf("name %q", v.Name)
		}
	})
	t.Run("bad changes change nothing", func(t *testing.T) {
		h := newHouse(t)
		before := h.must(h.create(api.VMCreate{Name: "web", RootSize: 1 << 20}))
		for _, p := range []api.VMSet{
			{Name: "No_Name"}, {VCPU: 99}, {VCPU: -1}, {MemMiB: 1}, {RootSize: 1 << 19}, {DiskSize: 511}, {Env: []string{"x"}},
			{UnsetEnv: []string{"NOPE"}, VCPU: 2}, {AutoStopMS: new(int64(-2))},
		} {
			if _, err := h.set(p); !errkind.Is(err, api.KindInvalid) && !errkind.Is(err, api.KindNotFound) {
				t.Errorf("%+v: %v", p, err)
			}
		}
		if d := cmp.Diff(before, h.must(h.vms.Get(t.Context(), "web")), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}, netip.AddrPort{})); d != "" {
			t.Error(d)
		}
	})
}

// TestServiceFaults makes each step of the service fail, on its way and by the daemon's death, and repeats the verb.
func TestServiceFaults(t *testing.T) {
	verbs := map[string]func(h *house) error{
		"create.reserved": func(h *house) error { _, err := h.create(running); return err },
		"start.starting": func(h *house) error {
			_, err := h.vms.Start(h.t.Context(), "web", opstate.Discard)
			return err
		},
		"stop.stopping": func(h *house) error {
			_, err := h.vms.Stop(h.t.Context(), "web", 0, opstate.Discard)
			return err
		},
		"set.recorded":    func(h *house) error { _, err := h.set(api.VMSet{VCPU: 2, Restart: true}); return err },
		"delete.deleting": func(h *house) error { return h.vms.Delete(h.t.Context(), "web", true, opstate.Discard) },
	}
	verbs["pause.recorded"] = func(h *house) error {
		_, err := h.vms.Pause(h.t.Context(), "web", opstate.Discard)
		return err
	}
	verbs["resume.resumed"] = func(h *house) error {
		err := verbs["pause.recorded"](h)
		if err == nil {
			_, err = h.vms.Resume(h.t.Context(), "web", opstate.Discard)
		}
		return err
	}
	verbs["stop.powered-off"] = verbs["stop.stopping"]
	verbs["delete.destroyed"], verbs["delete.directories"] = verbs["delete.deleting"], verbs["delete.deleting"]
	for _, step := range vmSteps() {
		verb, ok := verbs[step]
		if !ok {
			t.Errorf("no verb passes %s", step)
			continue
		}
		t.Run("what fails at "+step+" succeeds when it is done again", func(t *testing.T) {
			h := newHouse(t)
			if step != "create.reserved" {
				h.must(h.create(api.VMCreate{Name: "web", Start: step != "start.starting"}))
			}
			h.restart(step + "=error")
			if err := verb(h); err == nil || !strings.Contains(err.Error(), "failpoint "+step) {
				t.Fatalf("got %v", err)
			}
			h.restart("")
			if err := verb(h); err != nil {
				t.Fatal(err)
			}
			if err := h.vms.Delete(t.Context(), "web", true, opstate.Discard); err != nil && !errkind.Is(err, api.KindNotFound) {
				t.Fatal(err)
			}
			h.empty()
		})
	}
}

func TestKillSignal(t *testing.T) {
	t.Run("a machine that ends by the signal is not killed", func(t *testing.T) {
		h := newHouse(t)
		h.must(h.create(running))
		killed := h.host.Hold(fake.PointKilled) // a kill would hang
		defer killed()
		if v := h.must(h.vms.Kill(t.Context(), "web", syscall.SIGTERM, opstate.Discard)); v.State != banger.Stopped {
			t.Errorf("state %s", v.State)
		}
	})
}

func TestHaltedGuest(t *testing.T) {
	h := newHouse(t)
	v := h.must(h.create(running))
	conditions := func() int { return len(h.vms.Conditions(v)) }
	h.host.Halt(v.ID, "the disk is full")
	h.eventually("the VM has a condition", func() bool { return conditions() == 1 })
	if c := h.vms.Conditions(v)[0]; c.Type != "disk" || c.Message != "the disk is full" || c.Since.IsZero() {
		t.Errorf("got %+v", c)
	}
	_, _, err := h.vms.Health(t.Context(), "web")
	if !errkind.Is(err, api.KindUnavailable) || !strings.Contains(err.Error(), "the disk is full") || !strings.Contains(errkind.Hint(err), "make room") {
		t.Errorf("got %v; %s", err, errkind.Hint(err))
	}
	h.restart("") // another daemon sees it too
	h.eventually("the VM has a condition", func() bool { return conditions() == 1 })
	h.host.Halt(v.ID, "")
	h.eventually("the condition is gone", func() bool { return conditions() == 0 })
	if _, _, err := h.vms.Health(t.Context(), "web"); err != nil {
		t.Error(err)
	}
}
