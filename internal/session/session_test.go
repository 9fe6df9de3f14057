package session

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/guesttest"
)

// host is two VMs: "web" has an agent that knows some sessions, "off" does not run.
type host struct {
	mu       sync.Mutex // the agent answers while the test changes
	sessions []guestapi.Session
	index    map[banger.VMID][]guestapi.Session
	writes   int
	link     *guest.Link
	vms      []banger.VM
}

func newHost(t *testing.T) *host {
	h := &host{index: map[banger.VMID][]guestapi.Session{}, vms: []banger.VM{
		{ID: "a", Name: "web", State: banger.Running}, {ID: "b", Name: "off", State: banger.Stopped},
	}}
	list := func(context.Context, *call.Call) (any, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.sessions == nil {
			return nil, errkind.New(api.KindInternal, "the agent is confused")
		}
		return guestapi.SessionList{Sessions: h.sessions}, nil
	}
	start := func(context.Context, *call.Call) (any, error) {
		h.tell(guestapi.Session{ID: "1", Name: "one", State: guestapi.SessionRunning})
		return h.sessions[0], nil
	}
	h.link = guest.NewLink(guesttest.Serve(t, map[string]call.Handler{
		guestapi.MethodSessionList: list, guestapi.MethodSessionStart: start,
	}), slog.New(slog.DiscardHandler))
	t.Cleanup(func() { h.link.Close() })
	return h
}

// tell is what the agent tells from now on.
func (h *host) tell(sessions ...guestapi.Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sessions = sessions
}

func (h *host) List(context.Context) ([]banger.VM, error) { return h.vms, nil }

func (h *host) Get(_ context.Context, ref string) (banger.VM, error) {
	i := slices.IndexFunc(h.vms, func(v banger.VM) bool { return v.Name == ref || string(v.ID) == ref })
	if i < 0 {
		return banger.VM{}, errkind.New(api.KindNotFound, "no VM %q", ref)
	}
	return h.vms[i], nil
}

func (h *host) Guest(ctx context.Context, ref string) (banger.VM, *guest.Conn, error) {
	vm, err := h.Get(ctx, ref)
	if err != nil {
		return vm, nil, err
	}
	c, err := h.link.Get(ctx)
	return vm, c, err
}

func (h *host) Sessions(_ context.Context, id banger.VMID) ([]guestapi.Session, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.index[id]), nil
}

func (h *host) PutSessions(_ context.Context, id banger.VMID, s []guestapi.Session) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes++
	h.index[id] = s
	return nil
}

// names lists sessions as "VM NAME STATE".
func names(t *testing.T, s *Service, refs ...string) []string {
	t.Helper()
	list, err := s.List(t.Context(), refs)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, one := range list {
		out = append(out, one.VM+" "+one.Name+" "+string(one.State))
	}
	return out
}

func TestList(t *testing.T) {
	h := newHost(t)
	h.index["b"] = []guestapi.Session{{ID: "9", Name: "ran", State: guestapi.SessionRunning}, {ID: "8", Name: "done", State: guestapi.SessionExited}}
	h.tell(guestapi.Session{ID: "1", Name: "one", State: guestapi.SessionRunning})
	s := New(h, h, slog.New(slog.DiscardHandler))
	t.Run("the agent's word where a VM runs, the index's where it does not", func(t *testing.T) {
		if diff := cmp.Diff([]string{"web one running", "off ran lost", "off done exited"}, names(t, s)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("the index is written when something has changed, and not for each line of output", func(t *testing.T) {
		h.tell(guestapi.Session{ID: "1", Name: "one", State: guestapi.SessionRunning, LogEnd: 1000})
		names(t, s, "web")
		if h.writes != 1 {
			t.Errorf("%d writes", h.writes)
		}
		h.tell(guestapi.Session{ID: "1", Name: "one", State: guestapi.SessionExited})
		names(t, s, "web")
		if h.writes != 2 || h.index["a"][0].State != guestapi.SessionExited {
			t.Errorf("%d writes, %+v", h.writes, h.index["a"])
		}
	})
	t.Run("an agent that does not answer is no failure of the list", func(t *testing.T) {
		h.tell()
		if diff := cmp.Diff([]string{"web one exited"}, names(t, s, "web")); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a VM that is not there is one", func(t *testing.T) {
		if _, err := s.List(t.Context(), []string{"none"}); !errkind.Is(err, api.KindNotFound) {
			t.Error(err)
		}
	})
}

func TestCall(t *testing.T) {
	h := newHost(t)
	s := New(h, h, slog.New(slog.DiscardHandler))
	var got guestapi.Session
	vm, err := s.Call(t.Context(), "web", guestapi.MethodSessionStart, nil, &got)
	if err != nil || vm.Name != "web" || got.Name != "one" {
		t.Fatalf("%+v, %+v, %v", vm, got, err)
	}
	if len(h.index["a"]) != 1 {
		t.Errorf("the index has %+v", h.index["a"])
	}
}
