// Package web serves HTTP: the [UI] for browsers on a loopback address, metrics for monitors on a TCP address that the user has
// asked for, and metrics for whoever may call the daemon, on its socket.
//
// A page of any web site can make its visitor's browser ask 127.0.0.1, and by DNS rebinding read the answer. So what is served on
// an address answers only requests whose Host is an IP address, localhost, or the host that the user has configured: a rebound
// name is none of these. Metrics are read-only; what guards the UI, which is not, is in package auth.
//
// The UI is a client of the daemon like any other, over its socket: it has no way to the services, and no rule of its own.
package web

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/web/auth"
)

// Handler returns what there is: GET /metrics.
func Handler(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	return mux
}

// Server serves a handler on a TCP address.
type Server struct {
	l    net.Listener
	http *http.Server
}

// Listen listens on address, a host and a port. One that is not of the loopback interface is of kind invalid, unless public says
// that it is meant; one that cannot be had, of kind unavailable.
func Listen(address string, public bool, h http.Handler, log *slog.Logger) (*Server, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, errkind.WithHint(errkind.New(api.KindInvalid, "listen on %q: %w", address, err), "write it as 127.0.0.1:9190")
	}
	if !public && !loopback(host) {
		return nil, errkind.WithHint(errkind.New(api.KindInvalid, "%s is not a loopback address, and everybody who can reach it could read it", address),
			"use 127.0.0.1, or set metrics_public = true if that is meant")
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, errkind.WithHint(errkind.Wrap(api.KindUnavailable, err), "choose another address for metrics_listen, or none")
	}
	return &Server{l: l, http: &http.Server{
		Handler: guard(host, h), ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}, nil
}

// ListenUI listens for browsers on address, a loopback host and a port; others are of kind invalid. One that cannot be had is of kind
// unavailable.
func ListenUI(address string, ui *UI, log *slog.Logger) (*Server, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil || !loopback(host) {
		return nil, errkind.WithHint(errkind.New(api.KindInvalid, "web_listen: %q is no loopback address with a port", address),
			"write it as 127.0.0.1:7777; from another machine, reach it with `ssh -L 7777:127.0.0.1:7777`")
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, errkind.WithHint(errkind.New(api.KindUnavailable, "the web UI is not served: %w", err),
			"end what has that port, or choose another one with web_listen, and start the daemon again")
	}
	return &Server{l: l, http: &http.Server{ // without limits for a whole request: pages follow what happens
		Handler: ui, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}, nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Addr is the address that is listened on.
func (s *Server) Addr() net.Addr { return s.l.Addr() }

// Close stops listening. It is for a server that does not run; a nil one is closed.
func (s *Server) Close() error {
	if s == nil {
		return nil
	}
	return s.l.Close()
}

// Run serves until ctx ends, and then lets requests under way finish for a second.
func (s *Server) Run(ctx context.Context) error {
	ended := make(chan struct{})
	stay := context.AfterFunc(ctx, func() {
		defer close(ended)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if s.http.Shutdown(grace) != nil {
			s.http.Close() //nolint:errcheck // its listener is closed already
		}
	})
	err := s.http.Serve(s.l)
	if stay() { // ctx has not ended
		return err
	}
	<-ended
	return nil
}

// guard refuses requests whose Host is a name that nobody has configured.
func guard(configured string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !auth.HostAllowed(r.Host, configured) {
			http.Error(w, "Host is not an address, localhost or the host in metrics_listen", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}
