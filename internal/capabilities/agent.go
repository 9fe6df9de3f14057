package capabilities

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vmm"
)

// Agent connects to the guest's agent. It comes last: once it is attached the guest is ready.
type Agent struct {
	Log *slog.Logger
}

// Name implements capability.Capability.
func (*Agent) Name() string { return "agent" }

// Attach waits until the agent answers. A guest that does not come up is reported with the end of its console.
func (a *Agent) Attach(ctx context.Context, r *capability.Run) error {
	hello, err := a.first(ctx, r)
	if err != nil {
		return withConsole(r, err)
	}
	for _, w := range hello.Warnings {
		a.Log.Warn("guest", "vm", r.VM.Name, "warning", w)
	}
	r.Hello = hello
	return nil
}

// first waits until the guest is there, and is this VM's.
func (a *Agent) first(ctx context.Context, r *capability.Run) (guestapi.Hello, error) {
	r.Link = guest.NewLink(r.Machine.DialAgent, a.Log)
	switch {
	case r.Making:
		return guest.WaitReady(ctx, r.Link, r.Machine.Exited(), guest.BootEnded(time.Minute))
	case r.Template != nil:
		r.Report.Stage("wake guest")
		return guest.Become(ctx, r.Link, r.Machine.Exited(), r.Boot)
	}
	r.Report.Stage("boot guest")
	return guest.WaitReady(ctx, r.Link, r.Machine.Exited())
}

// Detach closes the channel.
func (*Agent) Detach(_ context.Context, r *capability.Run) error {
	if r.Link != nil {
		r.Link.Close()
	}
	return nil
}

// reattachTimeout bounds the first question to an adopted guest. One that does not answer runs on with a condition.
const reattachTimeout = 3 * time.Second

// Reattach implements capability.Reattacher.
func (a *Agent) Reattach(ctx context.Context, r *capability.Run) error {
	r.Link = guest.NewLink(r.Machine.DialAgent, a.Log)
	if r.VM.State == banger.Paused {
		return nil // it answers when it is resumed
	}
	ctx, cancel := context.WithTimeout(ctx, reattachTimeout)
	defer cancel()
	conn, err := r.Link.Get(ctx)
	if err != nil {
		return err
	}
	return conn.Call(ctx, guestapi.MethodHello, nil, &r.Hello)
}

// consoleTail is how much of the console an error carries, in bytes.
const consoleTail = 2 << 10

// withConsole adds how the machine ended and the end of the guest's console to err, since that is where the reason stands.
func withConsole(r *capability.Run, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	select {
	case <-r.Machine.Exited():
		err = errkind.New(api.KindGuest, "%w: %s", err, r.Machine.Exit().Reason)
	default:
	}
	console := "the guest's console is empty: its kernel did not get far"
	if tail := tailOf(filepath.Join(r.Dir, vmm.ConsoleLog)); len(tail) > 0 {
		console = "the guest's console ends with:\n" + string(tail)
	}
	err = errkind.New(errkind.Of(err), "%w\n%s", err, console)
	return errkind.WithHint(err, "the console's end says how far vm %q came; if it is short of memory give it more (--memory), "+
		"if the image's init fails try --init agent, else another --kernel", r.VM.Name)
}

func tailOf(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > consoleTail {
		f.Seek(-consoleTail, io.SeekEnd) //nolint:errcheck // a longer tail is no harm
	}
	b, err := io.ReadAll(io.LimitReader(f, consoleTail))
	if err != nil {
		return nil
	}
	return bytes.TrimSpace(b)
}
