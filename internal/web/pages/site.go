// Package pages makes the HTML of the web UI. A page is what a client of the daemon's socket was told, put into a template; a form
// is one call. There is no rule in here: what may be done, and what is wrong with a value, the daemon says, as it does to the
// command line.
//
// Words: a page is loaded by its handler and rendered whole; its parts marked data-live are what app.js puts in place of the old
// ones after something has happened; a fragment is a part that is asked for by itself, because a guest must answer for it.
//
// What a guest says (logs, process and file names, diffs) is hostile: it goes through html/template, or as plain text, and without
// control characters.
package pages

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/errkind"
)

//go:embed html/*.html
var files embed.FS

// Config is what a [Site] is made of.
type Config struct {
	// Connect returns a client of this daemon.
	Connect func(ctx context.Context) (*client.Client, error)
	// Token returns what the forms of a request's browser must send back as csrf.
	Token func(*http.Request) string
	Log   *slog.Logger
}

// Site is all pages.
type Site struct {
	c     Config
	pages map[string]*template.Template
}

// New returns the pages.
func New(c Config) *Site {
	s := &Site{c: c, pages: map[string]*template.Template{}}
	names, err := files.ReadDir("html")
	if err != nil {
		panic(err) // it is embedded
	}
	for _, n := range names {
		t := template.New(n.Name()).Funcs(funcs())
		s.pages[n.Name()] = template.Must(t.ParseFS(files, "html/layout.html", "html/parts.html", "html/"+n.Name()))
	}
	return s
}

// Handler serves the pages.
func (s *Site) Handler() http.Handler {
	mux := http.NewServeMux()
	s.vmRoutes(mux)
	s.createRoutes(mux)
	s.workspaceRoutes(mux)
	s.imageRoutes(mux)
	s.operationRoutes(mux)
	mux.HandleFunc("GET /", s.notFound)
	mux.Handle("GET /{$}", s.page("dashboard", "banger", dashboard))
	mux.Handle("GET /doctor", s.page("doctor", "Doctor", doctor))
	mux.Handle("GET /doctor/summary", s.fragment("doctor", "findings", doctor))
	mux.Handle("POST /doctor/fix", s.action(func(ctx context.Context, c *client.Client, r *http.Request) (string, error) {
		_, err := c.Fix(ctx, api.DoctorAsk{})
		return "/doctor", err
	}))
	return mux
}

// view is what the templates get.
type view struct {
	Title string
	Path  string // of the page
	CSRF  string
	Error *api.Error
	Data  any
}

// loader asks the daemon for what a page shows.
type loader func(ctx context.Context, c *client.Client, r *http.Request) (any, error)

// page serves a whole page from the template of that name.
func (s *Site) page(name, title string, load loader) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := view{Title: title, Path: r.URL.Path, CSRF: s.c.Token(r)}
		if ref := r.PathValue("ref"); ref != "" {
			v.Title = ref + " · " + title
		}
		c, err := s.c.Connect(r.Context())
		if err == nil {
			v.Data, err = load(r.Context(), c, r)
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.render(w, name, "layout", http.StatusOK, v)
	})
}

// fragment serves one part of the template of that name. Its error is shown in its place.
func (s *Site) fragment(name, part string, load loader) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := view{Path: r.URL.Path, CSRF: s.c.Token(r)}
		ctx, cancel := context.WithTimeout(r.Context(), guestTimeout)
		defer cancel()
		c, err := s.c.Connect(ctx)
		if err == nil {
			v.Data, err = load(ctx, c, r)
		}
		if err != nil {
			v.Error = errkind.Wire(err)
			part = "error"
		}
		s.render(w, name, part, http.StatusOK, v)
	})
}

const (
	// guestTimeout is how long a fragment may wait for a guest or for the host's checks.
	guestTimeout = 30 * time.Second
	// actionTimeout is how long an action may take: longer than any stop, start or check.
	actionTimeout = 10 * time.Minute
)

// action serves a form: do makes the change and returns the page to go on with. The change is not the browser's to take back by
// leaving the page.
func (s *Site) action(do func(ctx context.Context, c *client.Client, r *http.Request) (next string, err error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), actionTimeout)
		defer cancel()
		c, err := s.c.Connect(ctx)
		next := ""
		if err == nil {
			next, err = do(ctx, c, r)
		}
		switch script := r.Header.Get("X-Script") != ""; {
		case err != nil && script:
			s.json(w, status(err), errkind.Wire(err))
		case err != nil:
			s.fail(w, r, err)
		case script:
			s.json(w, http.StatusOK, map[string]string{"next": next})
		default:
			http.Redirect(w, r, next, http.StatusSeeOther)
		}
	})
}

func (s *Site) json(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.c.Log.Debug("answer a browser", "err", err)
	}
}

// fail shows what went wrong as a page.
func (s *Site) fail(w http.ResponseWriter, r *http.Request, err error) {
	s.render(w, "error", "layout", status(err), view{Title: "Error", Path: r.URL.Path, CSRF: s.c.Token(r), Error: errkind.Wire(err)})
}

// status is the HTTP status that says most about err.
func status(err error) int {
	switch errkind.Of(err) {
	case api.KindInvalid:
		return http.StatusBadRequest
	case api.KindNotFound:
		return http.StatusNotFound
	case api.KindExists, api.KindBusy, api.KindPrecondition:
		return http.StatusConflict
	case api.KindPermission:
		return http.StatusForbidden
	case api.KindUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// Login writes the page of one who is not logged in. The status has been written.
func (s *Site) Login(w http.ResponseWriter, r *http.Request) {
	s.render(w, "login", "login", 0, view{Title: "Log in"})
}

// notFound says that there is no such page.
func (s *Site) notFound(w http.ResponseWriter, r *http.Request) {
	s.fail(w, r, errkind.New(api.KindNotFound, "there is no page %s", r.URL.Path))
}

func (s *Site) render(w http.ResponseWriter, name, part string, code int, v view) {
	var out bytes.Buffer // so that a template that fails midway is not half a page
	if err := s.pages[name+".html"].ExecuteTemplate(&out, part, v); err != nil {
		s.c.Log.Error("render a page", "page", name, "err", err)
		http.Error(w, "this page cannot be shown: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if code != 0 {
		w.WriteHeader(code)
	}
	if _, err := out.WriteTo(w); err != nil {
		s.c.Log.Debug("answer a browser", "err", err)
	}
}
