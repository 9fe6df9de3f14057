package agent

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/agent/facts"
	"github.com/banger-vm/banger/internal/errkind"
)

func testAgent() *Agent {
	cfg := guestapi.BootConfig{VMID: "vm1", Init: guestapi.InitAgent, AuthorizedKeys: []string{"ssh-ed25519 A"}, Env: []string{"A=1"}}
	return newAgent(cfg, "v1", facts.NewJournal(nil, []string{"a warning"}), slog.New(slog.DiscardHandler))
}

// ask makes one call on a's handlers.
func ask(ctx context.Context, t *testing.T, a *Agent, method string, params, result any) error {
	t.Helper()
	host, guest := net.Pipe()
	defer host.Close()
	go call.Serve(ctx, guest, a.handlers())
	return api.StartCall(host, bufio.NewReader(host), method, params, result)
}

func TestHello(t *testing.T) {
	t.Run("says who the guest is", func(t *testing.T) {
		var h guestapi.Hello
		if err := ask(t.Context(), t, testAgent(), guestapi.MethodHello, nil, &h); err != nil {
			t.Fatal(err)
		}
		if h.VMID != "vm1" || h.Version != "v1" || h.BootID == "" || h.Kernel == "" || h.NetworkUp || !slices.Equal(h.Warnings, []string{"a warning"}) {
			t.Errorf("hello is %+v", h)
		}
	})
	t.Run("waits for the network where it is asked to", func(t *testing.T) {
		a := testAgent()
		go a.network.decide(true)
		var h guestapi.Hello
		if err := ask(t.Context(), t, a, guestapi.MethodHello, guestapi.Await{Network: true}, &h); err != nil || !h.NetworkUp {
			t.Fatalf("hello is %+v, %v", h, err)
		}
	})
	t.Run("does not wait for what will not come", func(t *testing.T) {
		a := testAgent()
		a.ssh.decide(false)
		var h guestapi.Hello
		if err := ask(t.Context(), t, a, guestapi.MethodHello, guestapi.Await{SSH: true}, &h); err != nil || h.SSHUp {
			t.Fatalf("hello is %+v, %v", h, err)
		}
	})
	t.Run("ends with the session", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := ask(ctx, t, testAgent(), guestapi.MethodHello, guestapi.Await{Network: true}, nil); err == nil {
			t.Fatal("no error")
		}
	})
}

func TestConfigureReplacesWhatIsGiven(t *testing.T) {
	a := testAgent()
	a.identity.hostKey = "PEM"
	if err := ask(t.Context(), t, a, guestapi.MethodConfig, guestapi.Identity{AuthorizedKeys: []string{}}, nil); err != nil {
		t.Fatal(err)
	}
	if len(a.identity.keys) != 0 || a.identity.hostKey != "PEM" || !slices.Equal(a.identity.env, []string{"A=1"}) {
		t.Errorf("identity is %+v", &a.identity)
	}
}

func TestEveryMethodHasAHandler(t *testing.T) {
	have := testAgent().handlers()
	for _, m := range []string{guestapi.MethodHello, guestapi.MethodConfig, guestapi.MethodStats, guestapi.MethodPorts, guestapi.MethodSync,
		guestapi.MethodPowerOff, guestapi.MethodExec, guestapi.MethodTarIn, guestapi.MethodTarOut, guestapi.MethodDial,
		guestapi.MethodSSH, guestapi.MethodWorkIn, guestapi.MethodWorkStat, guestapi.MethodWorkOut} {
		if have[m] == nil {
			t.Errorf("no handler for %s", m)
		}
	}
}

func TestMilestoneIsDecidedOnce(t *testing.T) {
	m := newMilestone()
	if m.isReached() {
		t.Error("reached before it was decided")
	}
	m.decide(true)
	m.decide(false)
	if !m.isReached() || m.wait(t.Context()) != nil {
		t.Error("the first decision stands")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newMilestone().wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestBecome(t *testing.T) {
	seed := make([]byte, 32)
	t.Run("a guest that is a VM's becomes no other", func(t *testing.T) {
		err := ask(t.Context(), t, testAgent(), guestapi.MethodBecome, guestapi.Become{Config: guestapi.BootConfig{VMID: "vm2"}, Seed: seed}, nil)
		if !errkind.Is(err, api.KindPrecondition) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a VM that asks again, as the answer was lost, is told what its guest is", func(t *testing.T) {
		a := testAgent()
		before := a.config()
		p := guestapi.Become{Config: guestapi.BootConfig{VMID: before.VMID, Name: "another"}, Seed: seed}
		var h guestapi.Hello
		if err := ask(t.Context(), t, a, guestapi.MethodBecome, p, &h); err != nil || h.VMID != before.VMID || a.config().Name != before.Name {
			t.Errorf("hello is %+v, %v", h, err)
		}
	})
	template := func() *Agent {
		return newAgent(guestapi.BootConfig{Init: guestapi.InitAgent, Template: true}, "v1", facts.NewJournal(nil, nil), slog.New(slog.DiscardHandler))
	}
	t.Run("a template's guest has no boot id, which others would have too", func(t *testing.T) {
		var h guestapi.Hello
		if err := ask(t.Context(), t, template(), guestapi.MethodHello, nil, &h); err != nil || h.BootID != "" || h.Kernel == "" {
			t.Errorf("hello is %+v, %v", h, err)
		}
	})
	for name, p := range map[string]guestapi.Become{
		"a template": {Config: guestapi.BootConfig{VMID: "vm2", Template: true}, Seed: seed},
		"nobody":     {Seed: seed},
		"a VM whose random numbers would be the template's": {Config: guestapi.BootConfig{VMID: "vm2"}, Seed: seed[:31]},
	} {
		t.Run("it does not become "+name, func(t *testing.T) {
			a := template()
			if err := ask(t.Context(), t, a, guestapi.MethodBecome, p, nil); !errkind.Is(err, api.KindInvalid) || !a.config().Template {
				t.Errorf("got %v", err)
			}
		})
	}
}
