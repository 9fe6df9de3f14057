// Package auth decides who may see the web UI, and what a browser may do with its pages.
//
// `banger web` has the daemon issue a ticket, which a browser trades, once, for a cookie. The cookie holds its own end and a
// MAC with a key that is kept on disk, so logins outlive the daemon; removing the key ends them all. What else is in the way of
// a page of another site: the names by which it may ask (Host, against DNS rebinding), where a change or a WebSocket may come
// from (Origin), a token in every form (CSRF), and a content security policy without inline script.
package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

const (
	// TicketLife is how long the link of `banger web` may be used.
	TicketLife = 5 * time.Minute
	loginLife  = 30 * 24 * time.Hour
	maxTickets = 16
)

// Gate lets logged-in browsers in.
type Gate struct {
	key   []byte
	login http.HandlerFunc // writes the login page
	open  []string         // paths that need no login: what the login page is made of

	mu      sync.Mutex // tickets are issued and traded concurrently
	tickets map[string]time.Time
}

// Open returns a gate with the key at path, which is made when it is not there. A key that cannot be read is never replaced.
// login writes the page of one who is not logged in; open are the paths of what it needs.
func Open(path string, login http.HandlerFunc, open ...string) (*Gate, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		key = make([]byte, sha256.Size)
		rand.Read(key) //nolint:errcheck // it never fails
		err = host.WriteFile(path, key, 0o600)
	}
	switch {
	case err != nil:
		return nil, err
	case len(key) < sha256.Size:
		return nil, errkind.WithHint(errkind.New(api.KindDataLoss, "the key %s is damaged", path),
			"remove it; the daemon then makes a new one, and browsers must log in again")
	}
	return &Gate{key: key, login: login, open: open, tickets: map[string]time.Time{}}, nil
}

// Ticket returns a ticket that is good for one login within [TicketLife]. Of many that were issued only the latest are good.
func (g *Gate) Ticket() string {
	ticket, now := rand.Text(), time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	oldest := ticket
	g.tickets[ticket] = now.Add(TicketLife)
	for t, end := range g.tickets {
		if end.Before(g.tickets[oldest]) {
			oldest = t
		}
	}
	if len(g.tickets) > maxTickets {
		delete(g.tickets, oldest)
	}
	return ticket
}

// trade takes a ticket, which is good no more.
func (g *Gate) trade(ticket string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	end, ok := g.tickets[ticket]
	delete(g.tickets, ticket)
	return ok && time.Now().Before(end)
}

// Login trades the ticket of a request for a cookie. A good one is answered with a page that leads on by itself: a redirect
// would still count as of the site where the link was followed, and a browser keeps SameSite=Strict cookies from it.
func (g *Gate) Login(w http.ResponseWriter, r *http.Request) {
	if !g.trade(r.FormValue("ticket")) {
		w.WriteHeader(http.StatusUnauthorized)
		g.login(w, r)
		return
	}
	end := time.Now().Add(loginLife)
	body := strconv.FormatInt(end.Unix(), 10) + "." + rand.Text()
	http.SetCookie(w, &http.Cookie{Name: cookieName(r), Value: body + "." + g.mac("login", body), Path: "/", Expires: end,
		HttpOnly: true, SameSite: http.SameSiteStrictMode})
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write([]byte(`<!doctype html><meta http-equiv="refresh" content="0;url=/"><title>banger</title><a href="/">Logged in</a>`))
}

// Logout has the browser forget its cookie.
func (g *Gate) Logout(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{Name: cookieName(r), Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// cookieName has the port in it: browsers keep the cookies of all ports of a host together.
func cookieName(r *http.Request) string {
	_, port, _ := net.SplitHostPort(r.Host)
	return "banger-" + port
}

func (g *Gate) mac(use, text string) string {
	m := hmac.New(sha256.New, g.key)
	m.Write([]byte(use + " " + text))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// known reports whether r carries a good cookie.
func (g *Gate) known(r *http.Request) bool {
	c, err := r.Cookie(cookieName(r))
	if err != nil {
		return false
	}
	i := strings.LastIndexByte(c.Value, '.')
	if i < 0 || !same(c.Value[i+1:], g.mac("login", c.Value[:i])) {
		return false
	}
	end, _, _ := strings.Cut(c.Value, ".")
	unix, err := strconv.ParseInt(end, 10, 64)
	return err == nil && time.Now().Before(time.Unix(unix, 0))
}

// Token returns what a form of r's browser must send as csrf.
func (g *Gate) Token(r *http.Request) string {
	c, err := r.Cookie(cookieName(r))
	if err != nil {
		return ""
	}
	return g.mac("csrf", c.Value)
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// maxForm bounds what a browser may send, in bytes.
const maxForm = 1 << 20

// Protect lets requests through to next that a logged-in browser makes by itself, and refuses all others.
func (g *Gate) Protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setHeaders(w.Header())
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		changes := r.Method != http.MethodGet && r.Method != http.MethodHead
		switch {
		case !HostAllowed(r.Host, ""):
			http.Error(w, "Host is neither an address nor localhost", http.StatusMisdirectedRequest)
		case (changes || r.Header.Get("Upgrade") != "") && r.Header.Get("Origin") != "http://"+r.Host:
			http.Error(w, "this comes from another site", http.StatusForbidden)
		case r.URL.Path == "/login":
			g.Login(w, r)
		case !g.known(r) && !g.isOpen(r):
			w.WriteHeader(http.StatusUnauthorized)
			g.login(w, r)
		case changes && !same(r.PostFormValue("csrf"), g.Token(r)):
			http.Error(w, "the form is out of date: load its page again", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func (g *Gate) isOpen(r *http.Request) bool {
	for _, path := range g.open {
		if r.URL.Path == path && r.Method == http.MethodGet {
			return true
		}
	}
	return false
}

// Policy is the content security policy of all pages. style is what else may be a style, such as 'unsafe-inline'.
func Policy(style string) string {
	return "default-src 'none'; script-src 'self'; style-src " + strings.TrimSpace("'self' "+style) +
		"; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
}

func setHeaders(h http.Header) {
	h.Set("Content-Security-Policy", Policy(""))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin") // no-referrer would have browsers send "null" as Origin
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Cache-Control", "no-store")
}

// HostAllowed reports whether a Host header names this host in a way that no other site can bring about: as an IP address, as
// localhost, or as configured. By DNS rebinding any other name could lead here.
func HostAllowed(header, configured string) bool {
	name := header
	if h, _, err := net.SplitHostPort(header); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	_, err := netip.ParseAddr(name)
	return err == nil || name == "localhost" || configured != "" && name == configured
}
