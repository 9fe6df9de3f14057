package agent

import (
	"context"
	"io"
	"maps"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/boot"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/agent/dialer"
	"github.com/banger-vm/banger/internal/agent/facts"
	"github.com/banger-vm/banger/internal/agent/files"
	"github.com/banger-vm/banger/internal/agent/power"
	"github.com/banger-vm/banger/internal/agent/worktree"
)

// handlers are all the methods that the agent answers.
func (a *Agent) handlers() map[string]call.Handler {
	all := map[string]call.Handler{
		guestapi.MethodHello:    a.hello,
		guestapi.MethodBecome:   a.become,
		guestapi.MethodConfig:   a.configure,
		guestapi.MethodStats:    func(context.Context, *call.Call) (any, error) { return facts.Stats(), nil },
		guestapi.MethodPorts:    func(context.Context, *call.Call) (any, error) { return facts.Ports(), nil },
		guestapi.MethodResolve:  a.resolve,
		guestapi.MethodSync:     func(context.Context, *call.Call) (any, error) { unix.Sync(); return nil, nil },
		guestapi.MethodPowerOff: a.handlePowerOff,
	}
	for _, more := range []map[string]call.Handler{
		a.commands.Handlers(), a.sessions.Handlers(), a.sshServer.Handlers(), files.Handlers(), dialer.Handlers(), worktree.Handlers(a.sup),
	} {
		maps.Copy(all, more)
	}
	return all
}

func (a *Agent) hello(ctx context.Context, c *call.Call) (any, error) {
	var await guestapi.Await
	if err := c.Params(&await); err != nil {
		return nil, err
	}
	if await.Network {
		if err := a.network.wait(ctx); err != nil {
			return nil, err
		}
	}
	if await.SSH {
		if err := a.ssh.wait(ctx); err != nil {
			return nil, err
		}
	}
	if await.Boot {
		if err := a.booted.wait(ctx); err != nil {
			return nil, err
		}
	}
	return a.whoWeAre(), nil
}

func (a *Agent) whoWeAre() guestapi.Hello {
	cfg := a.config()
	h := guestapi.Hello{
		Version: a.version, VMID: cfg.VMID, Init: cfg.Init,
		Kernel: oneLine("/proc/sys/kernel/osrelease"), NetworkUp: a.network.isReached(), SSHUp: a.ssh.isReached(),
	}
	if !cfg.Template { // the kernel makes it up when it is read first: each guest that was one template is to have its own
		h.BootID = oneLine("/proc/sys/kernel/random/boot_id")
	}
	h.Phases, h.Warnings = a.journal.Read()
	return h
}

func oneLine(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

func (a *Agent) configure(_ context.Context, c *call.Call) (any, error) {
	var id guestapi.Identity
	if err := c.Params(&id); err != nil {
		return nil, err
	}
	a.identity.replace(id)
	return nil, boot.SetClock(id.Time)
}

// delivery is how long the host may take to read the answer before the machine ends.
const delivery = time.Second

func (a *Agent) handlePowerOff(ctx context.Context, c *call.Call) (any, error) {
	ctx = context.WithoutCancel(ctx) // the host may go, the power-off stays
	a.end(ctx, func() {
		if err := c.Accept(api.Empty{}); err != nil {
			a.log.Error("answer power-off", "err", err)
			return
		}
		// The host closes its end when it has the answer; ending the machine before would lose it on the way.
		c.SetReadDeadline(time.Now().Add(delivery))
		io.Copy(io.Discard, c)
	})
	return nil, nil
}

// end powers the guest off, once; answer tells the host that nothing can be lost any more. Beside another init that is
// when init has been asked. It returns only to a second caller.
func (a *Agent) end(ctx context.Context, answer func()) {
	a.powerOff.Do(func() {
		a.sessions.PowerOff()
		var err error
		if a.config().Init == guestapi.InitAgent {
			err = power.Quiesce(ctx)
			answer()
		} else {
			answer()
			err = power.OffByInit(ctx, a.log)
		}
		if err != nil {
			a.log.Error("power off", "err", err)
		}
		power.Off(a.log)
	})
}
