package vmmtest

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/vmm"
)

var channelSentences = []sentence{
	{"a new connection to the control channel ends the old one", func(t *testing.T, h Harness) {
		m := start(t, h)
		old := h.dial(t, m)
		wantEcho(t, old, "first")
		wantEcho(t, h.dial(t, m), "second")
		wantEOF(t, old)
	}},
	{"the control channel can be opened again after it was closed", func(t *testing.T, h Harness) {
		m := start(t, h)
		for range 5 {
			conn, err := m.DialAgent(h.patiently(t))
			if err != nil {
				t.Fatalf("dial agent: %v", err)
			}
			conn.Close()
		}
		wantEcho(t, h.dial(t, m), "again")
	}},
	{"a dial whose context has ended fails with it", func(t *testing.T, h Harness) {
		m := start(t, h)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := m.DialAgent(ctx)
		wantKind(t, err, api.KindCanceled)
		wantEcho(t, h.dial(t, m), "unharmed")
	}},
	{"the control channel of a machine that has ended is unavailable", func(t *testing.T, h Harness) {
		m := start(t, h)
		c := h.dial(t, m)
		h.kill(t, m)
		wantEOF(t, c)
		_, err := m.DialAgent(h.patiently(t))
		wantKind(t, err, api.KindUnavailable)
	}},
}

var adoptSentences = []sentence{
	{"a handle survives JSON and adopts the machine after a daemon restart", func(t *testing.T, h Harness) {
		m := start(t, h)
		adopted, err := h.New(t).Adopt(h.patiently(t), throughJSON(t, m.Handle()))
		if err != nil {
			t.Fatalf("adopt: %v", err)
		}
		if a, b := adopted.Handle(), m.Handle(); a.PID != b.PID || a.ID != b.ID || a.RunDir != b.RunDir {
			t.Errorf("adopted %+v, want %+v", a, b)
		}
		wantEcho(t, h.dial(t, adopted), "adopted")
	}},
	{"the end of an adopted machine is noticed", func(t *testing.T, h Harness) {
		m := start(t, h)
		adopted, err := h.New(t).Adopt(h.patiently(t), m.Handle())
		if err != nil {
			t.Fatalf("adopt: %v", err)
		}
		wantEcho(t, h.dial(t, adopted), "up")
		h.Crash(t, adopted.Handle())
		wantEnd(t, h, running{Machine: adopted, spec: m.spec})
	}},
	{"an adopted machine can be killed, and its first owner notices", func(t *testing.T, h Harness) {
		m := start(t, h)
		adopted, err := h.New(t).Adopt(h.patiently(t), m.Handle())
		if err != nil {
			t.Fatalf("adopt: %v", err)
		}
		h.kill(t, adopted)
		if e := wantEnd(t, h, running{Machine: adopted, spec: m.spec}); e.Reason != "killed" || e.Clean {
			t.Errorf("exit %+v", e)
		}
		wantEnd(t, h, m)
	}},
	{"adopting a machine that is gone is not-found and removes its sockets", func(t *testing.T, h Harness) {
		m := start(t, h)
		names := entries(t, m.spec.RunDir)
		if len(names) == 0 {
			t.Fatal("a live machine has no sockets")
		}
		h.kill(t, m)
		for _, name := range names {
			stale(t, filepath.Join(m.spec.RunDir, name))
		}
		_, err := h.New(t).Adopt(h.patiently(t), m.Handle())
		wantKind(t, err, api.KindNotFound)
		wantNothing(t, h, m.spec, m.Handle())
	}},
	{"a pid that is alive with another start time is not believed, nor harmed", func(t *testing.T, h Harness) {
		m := start(t, h)
		c := h.dial(t, m)
		reused := m.Handle()
		reused.StartTime++
		_, err := h.New(t).Adopt(h.patiently(t), reused)
		wantKind(t, err, api.KindNotFound)
		wantEcho(t, c, "unharmed")
	}},
	{"a handle of another driver is invalid, and nothing is touched", func(t *testing.T, h Harness) {
		m := start(t, h)
		foreign := m.Handle()
		foreign.Driver += "-other"
		_, err := h.New(t).Adopt(h.patiently(t), foreign)
		wantKind(t, err, api.KindInvalid)
		wantEcho(t, h.dial(t, m), "untouched")
	}},
	{"an adoption that is canceled leaves everything as it is", func(t *testing.T, h Harness) {
		m := start(t, h)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := h.New(t).Adopt(ctx, m.Handle())
		wantKind(t, err, api.KindCanceled)
		wantEcho(t, h.dial(t, m), "untouched")
	}},
}

var endSentences = []sentence{
	{"a guest that powers off ends its machine cleanly", func(t *testing.T, h Harness) {
		if e := endBy(t, h, "power-off"); !e.Clean || e.Reason != "guest powered off" {
			t.Errorf("exit %+v", e)
		}
	}},
	{"a guest that reboots ends its machine, and not cleanly", func(t *testing.T, h Harness) {
		if e := endBy(t, h, "reboot"); e.Clean || e.Reason != "guest rebooted" {
			t.Errorf("exit %+v", e)
		}
	}},
	{"a guest kernel that panics ends its machine, and not cleanly", func(t *testing.T, h Harness) {
		if e := endBy(t, h, "panic"); e.Clean || !strings.HasPrefix(e.Reason, "guest kernel panicked: ") {
			t.Errorf("exit %+v", e)
		}
	}},
	{"a process that is killed from outside is noticed, and nothing is left", func(t *testing.T, h Harness) {
		m := start(t, h)
		h.Crash(t, m.Handle())
		if e := wantEnd(t, h, m); e.Clean || !strings.Contains(e.Reason, "killed by signal 9") {
			t.Errorf("exit %+v", e)
		}
	}},
	{"a kill ends the machine and leaves nothing", func(t *testing.T, h Harness) {
		m := start(t, h)
		h.kill(t, m)
		wantNothing(t, h, m.spec, m.Handle())
		if e := wantEnd(t, h, m); e.Clean || e.Reason != "killed" {
			t.Errorf("exit %+v", e)
		}
	}},
	{"a kill may be repeated, and a late one keeps the first reason", func(t *testing.T, h Harness) {
		m := start(t, h)
		h.Crash(t, m.Handle())
		first := wantEnd(t, h, m)
		h.kill(t, m)
		h.kill(t, m)
		if e := m.Exit(); e != first {
			t.Errorf("exit %+v became %+v", first, e)
		}
	}},
	{"a kill whose context has ended says so, and the machine ends all the same", func(t *testing.T, h Harness) {
		m := start(t, h)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := m.Kill(ctx); err != nil {
			wantKind(t, err, api.KindCanceled)
		}
		wantEnd(t, h, m)
	}},
	{"concurrent kills, dials and looks agree", func(t *testing.T, h Harness) {
		m := start(t, h)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if c, err := m.DialAgent(h.patiently(t)); err == nil {
					c.Close()
				}
			})
			all.Go(func() {
				m.Exit()
				m.Handle()
				if err := m.Kill(h.patiently(t)); err != nil {
					t.Errorf("kill: %v", err)
				}
				wantNothing(t, h, m.spec, m.Handle())
			})
		}
		all.Wait()
		wantEnd(t, h, m)
	}},
}

// endBy makes the guest end itself.
func endBy(t *testing.T, h Harness, how string) vmm.Exit {
	t.Helper()
	m := start(t, h)
	c := h.dial(t, m)
	wantEcho(t, c, "up")
	if err := tell(c, how); err != nil {
		t.Fatal(err)
	}
	return wantEnd(t, h, m)
}

// countdown is a context that ends at a use, counted: so a test reaches every moment at which a start looks at it.
type countdown struct {
	context.Context
	cancel context.CancelFunc
	left   atomic.Int64
}

func newCountdown(t *testing.T, uses int) *countdown {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	c := &countdown{Context: ctx, cancel: cancel}
	c.left.Store(int64(uses))
	return c
}

func (c *countdown) use() {
	if c.left.Add(-1) < 0 {
		c.cancel()
	}
}

func (c *countdown) Err() error {
	c.use()
	return c.Context.Err()
}

func (c *countdown) Done() <-chan struct{} {
	c.use()
	return c.Context.Done()
}
