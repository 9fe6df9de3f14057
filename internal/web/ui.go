package web

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/web/assets"
	"github.com/banger-vm/banger/internal/web/auth"
	"github.com/banger-vm/banger/internal/web/live"
	"github.com/banger-vm/banger/internal/web/pages"
	"github.com/banger-vm/banger/internal/web/terminal"
)

// UIConfig is what a [UI] is made of.
type UIConfig struct {
	// Connect returns a client of this daemon: the UI does what a client can, and nothing else.
	Connect func(ctx context.Context) (*client.Client, error)
	// Key is the path of the key that logins are made with.
	Key string
	// Stopped ends the terminals.
	Stopped context.Context
	Log     *slog.Logger
}

// UI is the pages for browsers.
type UI struct {
	gate    *auth.Gate
	handler http.Handler
}

const (
	changeInterval = 250 * time.Millisecond
	statsInterval  = 5 * time.Second
)

// NewUI returns the UI, and makes its key when there is none.
func NewUI(c UIConfig) (*UI, error) {
	u := &UI{}
	site := pages.New(pages.Config{
		Connect: c.Connect, Token: func(r *http.Request) string { return u.gate.Token(r) }, Log: c.Log,
	})
	gate, err := auth.Open(c.Key, site.Login, "/assets/app.css")
	if err != nil {
		return nil, err
	}
	files, err := assets.Handler()
	if err != nil {
		return nil, err
	}
	u.gate = gate
	mux := http.NewServeMux()
	mux.Handle("/", site.Handler())
	mux.Handle("/assets/", files)
	mux.Handle("GET /live", live.New(live.Config{Connect: c.Connect, Change: changeInterval, Stats: statsInterval, Log: c.Log}))
	mux.Handle("GET /vms/{ref}/terminal/socket", terminal.Handler(c.Stopped, c.Connect, c.Log))
	mux.HandleFunc("POST /logout", gate.Logout)
	u.handler = gate.Protect(mux)
	return u, nil
}

// ServeHTTP serves a browser.
func (u *UI) ServeHTTP(w http.ResponseWriter, r *http.Request) { u.handler.ServeHTTP(w, r) }

// Ticket returns a ticket for one login: /login?ticket=TICKET trades it.
func (u *UI) Ticket() string { return u.gate.Ticket() }
