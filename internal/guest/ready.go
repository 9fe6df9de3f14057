package guest

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/errkind"
)

// Requirement is one thing a guest must have before it counts as ready.
type Requirement struct {
	Name    string // for people: "the agent answers"
	Timeout time.Duration
	await   guestapi.Await
	met     func(guestapi.Hello) bool
}

// AgentAnswers requires that the kernel runs, the root is mounted and the agent answers. It comes first in every list.
func AgentAnswers(timeout time.Duration) Requirement {
	return Requirement{Name: "agent answering", Timeout: timeout, met: func(guestapi.Hello) bool { return true }}
}

// NetworkUp requires that the guest's interface has its address.
func NetworkUp(timeout time.Duration) Requirement {
	return Requirement{Name: "network up", Timeout: timeout, await: guestapi.Await{Network: true},
		met: func(h guestapi.Hello) bool { return h.NetworkUp }}
}

// SSHAnswers requires that the agent's SSH server listens on [guestapi.SSHPort].
func SSHAnswers(timeout time.Duration) Requirement {
	return Requirement{Name: "SSH answering", Timeout: timeout, await: guestapi.Await{SSH: true},
		met: func(h guestapi.Hello) bool { return h.SSHUp }}
}

// BootEnded requires that the boot has nothing left to do.
func BootEnded(timeout time.Duration) Requirement {
	return Requirement{Name: "end of the boot", Timeout: timeout, await: guestapi.Await{Boot: true},
		met: func(guestapi.Hello) bool { return true }}
}

// becomeTimeout is a hundred times what a guest takes that was just restored.
const becomeTimeout = 30 * time.Second

// Become makes a template's guest, restored, the one of cfg, with a random generator of its own. exited is closed when the machine
// ends. The error is of kind guest when the guest is at fault.
func Become(ctx context.Context, link *Link, exited <-chan struct{}, cfg guestapi.BootConfig) (hello guestapi.Hello, err error) {
	seed := make([]byte, 64)
	rand.Read(seed) //nolint:errcheck // it never fails
	p := guestapi.Become{Config: cfg, Seed: seed}
	become := Requirement{Name: "identity", Timeout: becomeTimeout, met: func(guestapi.Hello) bool { return true }}
	ctx, stop := until(ctx, exited)
	defer stop()
	return waitFor(ctx, become, func(ctx context.Context) (h guestapi.Hello, err error) {
		conn, err := link.Get(ctx)
		if err != nil {
			return h, err
		}
		p.Config.Time = time.Now()
		err = conn.Call(ctx, guestapi.MethodBecome, p, &h)
		return h, err
	})
}

// WaitReady waits until each requirement is met, in order; without any it waits a minute for the agent. It returns the
// agent's last Hello. exited is closed when the machine ends. The error names the requirement that is missing. It is of kind
// guest when the guest is at fault, and unavailable when the host is: the machine's socket cannot be reached.
func WaitReady(ctx context.Context, link *Link, exited <-chan struct{}, reqs ...Requirement) (guestapi.Hello, error) {
	if len(reqs) == 0 {
		reqs = []Requirement{AgentAnswers(time.Minute)}
	}
	ctx, stop := until(ctx, exited)
	defer stop()
	var hello guestapi.Hello
	for _, r := range reqs {
		var err error
		if hello, err = waitFor(ctx, r, func(ctx context.Context) (guestapi.Hello, error) { return ask(ctx, link, r.await) }); err != nil {
			return hello, err
		}
	}
	return hello, nil
}

var errExited = errors.New("the machine ended")

var errSlow = errors.New("requirement timed out")

// until is a context that ends with ctx, or when exited is closed.
func until(ctx context.Context, exited <-chan struct{}) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-exited:
			cancel(errExited)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// waitFor calls hello until the guest answers, and checks that r is met.
func waitFor(parent context.Context, r Requirement, hello func(context.Context) (guestapi.Hello, error)) (guestapi.Hello, error) {
	ctx, cancel := context.WithTimeoutCause(parent, r.Timeout, errSlow)
	defer cancel()
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		h, err := hello(ctx)
		if err == nil && r.met(h) {
			return h, nil
		}
		if err == nil {
			return h, errkind.New(api.KindGuest, "guest is not ready: no %s%s", r.Name, because(h.Warnings))
		}
		if ctx.Err() == nil && errkind.Is(err, api.KindUnavailable) {
			select { // the machine's socket may not be there yet, or the channel broke
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
		if ctx.Err() != nil || !errkind.Is(err, api.KindUnavailable) {
			return h, notReady(ctx, r, err)
		}
	}
}

func ask(ctx context.Context, link *Link, await guestapi.Await) (h guestapi.Hello, err error) {
	conn, err := link.Get(ctx)
	if err != nil {
		return h, err
	}
	err = conn.Call(ctx, guestapi.MethodHello, await, &h)
	return h, err
}

func because(warnings []string) string {
	if len(warnings) == 0 {
		return ""
	}
	return ": " + strings.Join(slices.Compact(warnings), "; ")
}

// notReady says why the wait for r ended with err.
func notReady(ctx context.Context, r Requirement, err error) error {
	var host *dialError
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errExited):
		return errkind.New(api.KindGuest, "guest is not ready: the machine ended before %s", r.Name)
	case errors.Is(cause, errSlow) && errors.As(err, &host) && !errors.Is(host.err, ctx.Err()): // a dial that still waits waits for the guest
		return errkind.New(api.KindUnavailable, "guest is not ready: no %s within %s: %w", r.Name, r.Timeout, err)
	case errors.Is(cause, errSlow):
		return errkind.New(api.KindGuest, "guest is not ready: no %s within %s", r.Name, r.Timeout)
	case cause != nil:
		return cause
	}
	return err
}
