// Package dnsroute leads the host's look-ups of VMs' names to banger's name server, where systemd-resolved resolves them: the
// bridge gets the server and the domain, and nothing else is sent there. The setting is of one link; it goes with the link, or is
// taken back at the end (org.freedesktop.resolve1(5)).
//
// Where there is no systemd-resolved nothing is done; docs/NETWORKING.md has recipes for other resolvers.
package dnsroute

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

const (
	service = "org.freedesktop.resolve1"
	path    = dbus.ObjectPath("/org/freedesktop/resolve1")
	manager = service + ".Manager."
)

// Resolver is the part of systemd-resolved that is used. The D-Bus connection implements it; tests have another.
type Resolver interface {
	// Call calls a method of the manager object.
	Call(ctx context.Context, method string, args ...any) error
	// Appeared is sent to whenever the resolver has started, and forgotten what it was told.
	Appeared() <-chan struct{}
	Close() error
}

// address is a server's address as SetLinkDNS takes it.
type address struct {
	Family int32
	Bytes  []byte
}

// domain is one as SetLinkDomains takes it. Route: names below it are asked for here, and it is not searched.
type domain struct {
	Name  string
	Route bool
}

// Run keeps the look-ups below name led to server through the link with that index until ctx ends, then takes it back.
func Run(ctx context.Context, index int, server netip.Addr, name string, log *slog.Logger) {
	r, err := connect(ctx)
	if err != nil {
		log.Debug("no systemd-resolved to tell of the name server", "err", err)
		return
	}
	defer r.Close()
	Keep(ctx, r, index, server, name, log)
}

// Keep is Run with a given resolver.
func Keep(ctx context.Context, r Resolver, index int, server netip.Addr, name string, log *slog.Logger) {
	for {
		err := set(ctx, r, index, server, name)
		if absent(err) {
			log.Debug("systemd-resolved does not run", "err", err)
		} else if err != nil && ctx.Err() == nil {
			log.Warn("tell systemd-resolved of the name server", "err", err)
		}
		select {
		case <-r.Appeared():
		case <-ctx.Done():
			undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
			defer cancel()
			if err := r.Call(undo, "RevertLink", int32(index)); err != nil && !absent(err) {
				log.Warn("take the name server back from systemd-resolved", "err", err)
			}
			return
		}
	}
}

const undoTimeout = 5 * time.Second

// set may be repeated.
func set(ctx context.Context, r Resolver, index int, server netip.Addr, name string) error {
	for _, call := range []struct {
		method string
		arg    any
	}{
		{"SetLinkDNS", []address{{unix.AF_INET, server.AsSlice()}}},
		{"SetLinkDomains", []domain{{name, true}}},
		{"SetLinkDefaultRoute", false},
	} {
		if err := r.Call(ctx, call.method, int32(index), call.arg); err != nil {
			return fmt.Errorf("%s: %w", call.method, err)
		}
	}
	return nil
}

// absent reports whether err says that nobody offers the service.
func absent(err error) bool {
	var e dbus.Error
	return errors.As(err, &e) && (e.Name == "org.freedesktop.DBus.Error.ServiceUnknown" || e.Name == "org.freedesktop.DBus.Error.NameHasNoOwner")
}

// bus is a Resolver on a D-Bus connection.
type bus struct {
	conn     *dbus.Conn
	appeared chan struct{}
}

func connect(ctx context.Context) (*bus, error) {
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(context.WithoutCancel(ctx)))
	if err != nil {
		return nil, err
	}
	err = conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface("org.freedesktop.DBus"), dbus.WithMatchMember("NameOwnerChanged"),
		dbus.WithMatchArg(0, service))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	b := &bus{conn: conn, appeared: make(chan struct{}, 1)}
	signals := make(chan *dbus.Signal, 16)
	conn.Signal(signals)
	go b.listen(signals)
	return b, nil
}

// listen ends when the connection closes, which closes signals.
func (b *bus) listen(signals <-chan *dbus.Signal) {
	for s := range signals {
		if len(s.Body) != 3 || s.Body[0] != service || s.Body[2] == "" {
			continue
		}
		select {
		case b.appeared <- struct{}{}:
		default:
		}
	}
}

func (b *bus) Call(ctx context.Context, method string, args ...any) error {
	return b.conn.Object(service, path).CallWithContext(ctx, manager+method, 0, args...).Err
}

func (b *bus) Appeared() <-chan struct{} { return b.appeared }

func (b *bus) Close() error { return b.conn.Close() }
