package dnsroute

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"
)

// fakeResolved is a systemd-resolved that tells of each call.
type fakeResolved struct {
	calls    chan string
	appeared chan struct{}
	err      error
}

func newFake() *fakeResolved {
	return &fakeResolved{calls: make(chan string, 16), appeared: make(chan struct{}, 1)}
}

func (f *fakeResolved) Call(ctx context.Context, method string, args ...any) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var texts []string
	for _, a := range args {
		texts = append(texts, fmt.Sprint(a))
	}
	f.calls <- method + "(" + strings.Join(texts, ", ") + ")"
	return f.err
}

func (f *fakeResolved) Appeared() <-chan struct{} { return f.appeared }
func (f *fakeResolved) Close() error              { return nil }

func (f *fakeResolved) expect(t *testing.T, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := <-f.calls; got != w {
			t.Errorf("got %s, want %s", got, w)
		}
	}
}

var setUp = []string{"SetLinkDNS(7, [{2 [10 209 0 1]}])", "SetLinkDomains(7, [{vm true}])", "SetLinkDefaultRoute(7, false)"}

func keep(t *testing.T, f *fakeResolved) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Keep(ctx, f, 7, netip.MustParseAddr("10.209.0.1"), "vm", slog.New(slog.DiscardHandler))
	}()
	return func() { cancel(); <-ended }
}

func TestKeep(t *testing.T) {
	t.Run("the link gets server and domain, and loses them at the end", func(t *testing.T) {
		f := newFake()
		stop := keep(t, f)
		f.expect(t, setUp...)
		stop()
		f.expect(t, "RevertLink(7)")
	})
	t.Run("a resolver that was started anew is told again", func(t *testing.T) {
		f := newFake()
		stop := keep(t, f)
		f.expect(t, setUp...)
		f.appeared <- struct{}{}
		f.expect(t, setUp...)
		stop()
		f.expect(t, "RevertLink(7)")
	})
	for _, err := range []error{dbus.Error{Name: "org.freedesktop.DBus.Error.ServiceUnknown"}, errors.New("no such link")} {
		t.Run("one that fails with "+err.Error()+" is told when it has started", func(t *testing.T) {
			f := newFake()
			f.err = err
			stop := keep(t, f)
			f.expect(t, setUp[0])
			f.appeared <- struct{}{}
			f.expect(t, setUp[0])
			stop()
			f.expect(t, "RevertLink(7)")
		})
	}
}
