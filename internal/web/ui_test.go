package web_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/web"
)

// evil is what a guest may say.
const evil = "<script>alert(1)</script>\x1b]0;title\x07\u202e"

// site is a UI that is served for one scripted daemon.
type site struct {
	*fakedaemon.Daemon
	t    *testing.T
	ui   *web.UI
	base string
	key  string
	http *http.Client // a browser: it keeps cookies
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{Daemon: fakedaemon.Start(t), t: t, key: filepath.Join(t.TempDir(), "key")}
	s.script()
	s.open()
	return s
}

// script has the daemon answer what pages ask.
func (s *site) script() {
	vm := api.VM{ID: "aaaaaaaaaaaa", Name: "web", State: "running", Image: evil, VCPU: 1, MemMiB: 256, LastError: evil,
		Conditions: []api.Condition{{Type: "agent", Message: evil}}, Workspace: &api.Workspace{GuestPath: "/root/" + evil}}
	s.Result(api.MethodPing, api.Ping{Protocol: api.ProtocolVersion})
	s.Result(api.MethodInfo, api.Info{VMM: "fake", VMs: 1, Running: 1})
	s.Result(api.MethodVMList, api.VMList{VMs: []api.VM{vm}})
	s.Result(api.MethodVMGet, vm)
	s.Result(api.MethodVMStats, api.VMStatsList{VMs: []api.VMStats{{ID: vm.ID, Guest: &guestapi.Stats{}}}})
	s.Result(api.MethodVMPorts, api.VMPorts{Ports: []api.VMPort{{Network: "tcp", Address: evil, Process: evil, URL: "javascript:alert(1)"}}})
	s.Result(api.MethodOperationList, api.OperationList{Operations: []api.Operation{{ID: "cccccccccccc", Kind: "vm.create", Subject: "web",
		State: api.OperationRunning, Stages: []api.Stage{{Name: evil, TookMS: -1}}}}})
	s.Result(api.MethodOperationGet, api.Operation{ID: "cccccccccccc", Kind: "vm.create", State: api.OperationFailed, Error: &api.Error{Message: evil, Hint: evil}})
	s.Result(api.MethodImageList, api.ImageList{Images: []api.Image{{Name: "debian", Source: evil, VMs: []string{"web"}}}})
	s.Result(api.MethodKernelList, api.KernelList{Kernels: []api.Kernel{{Name: "cloud", Source: evil}}})
	s.Result(api.MethodConfig, api.ConfigList{Values: []api.ConfigValue{{Key: "vm_defaults.memory", Value: "1GiB"}}})
	s.Result(api.MethodDoctor, api.Doctor{Checks: []api.Check{{Name: "kvm", Status: "warn", Detail: evil, Fix: evil}}})
	s.Result(api.MethodWorkStatus, api.WorkStatus{Unexported: true, Status: guestapi.WorkStatus{Files: []guestapi.WorkFile{{Path: evil, Status: "M"}}}})
	s.On(api.MethodEvents, func(c *fakedaemon.Call) {
		var p api.Events
		c.Decode(&p)
		c.Reply(api.EventsReply{Last: 7})
		if p.After != 0 || p.Follow {
			c.Line(api.Event{Seq: 8, Type: api.EventVMState, ID: vm.ID, Name: evil, Message: evil})
		}
		if p.Follow {
			c.HangUp()
		}
	})
	s.On(api.MethodOperationWatch, func(c *fakedaemon.Call) { c.Reply(api.Operation{}) })
	s.On(api.MethodVMLogs, func(c *fakedaemon.Call) {
		c.Reply(api.Empty{})
		io.WriteString(c, "\x1b[31m"+evil+"\x1b[0m\r\n"+strings.Repeat("x", 10<<20)+"\nlast\n")
	})
	s.On(api.MethodWorkExport, func(c *fakedaemon.Call) {
		c.Reply(guestapi.WorkOutReply{Format: "patch"})
		c.Frames().Write(frame.Stdout, []byte("diff --git a/x b/x\n+"+evil+"\n-old\n"))
		c.Exit(frame.ExitStatus{})
	})
}

// open serves the UI, as a daemon does that was started again: with the same key.
func (s *site) open() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ui, err := web.NewUI(web.UIConfig{Key: s.key, Stopped: ctx, Log: slog.New(slog.DiscardHandler),
		Connect: func(ctx context.Context) (*client.Client, error) { return client.Dial(ctx, s.Socket, client.Options{}) }})
	if err != nil {
		s.t.Fatal(err)
	}
	address := "127.0.0.1:0"
	if s.base != "" {
		address = strings.TrimPrefix(s.base, "http://")
	}
	server, err := web.ListenUI(address, ui, slog.New(slog.DiscardHandler))
	if err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
	s.ui, s.base = ui, "http://"+server.Addr().String()
	if s.http == nil {
		jar, err := cookiejar.New(nil)
		if err != nil {
			s.t.Fatal(err)
		}
		s.http = &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
}

// do sends a request, changed by change, and returns the answer and its body.
func (s *site) do(method, path, body string, change func(*http.Request)) (*http.Response, string) {
	s.t.Helper()
	r, err := http.NewRequest(method, s.base+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if method != http.MethodGet {
		r.Header.Set("Origin", s.base)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if change != nil {
		change(r)
	}
	resp, err := s.http.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp, string(data)
}

func (s *site) get(path string) (*http.Response, string) {
	s.t.Helper()
	return s.do("GET", path, "", nil)
}

func (s *site) login() {
	s.t.Helper()
	if resp, _ := s.get("/login?ticket=" + s.ui.Ticket()); resp.StatusCode != 200 {
		s.t.Fatalf("log in: %s", resp.Status)
	}
}

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// post sends a form with the token that the page has.
func (s *site) post(path string, values url.Values) (*http.Response, string) {
	s.t.Helper()
	_, html := s.get("/create")
	found := csrfField.FindStringSubmatch(html)
	if found == nil {
		s.t.Fatal("no token on the page")
	}
	if values == nil {
		values = url.Values{}
	}
	values.Set("csrf", found[1])
	return s.do("POST", path, values.Encode(), func(r *http.Request) { r.Header.Set("X-Script", "1") })
}

func TestWithoutLogin(t *testing.T) {
	s := newSite(t)
	for _, path := range []string{"/", "/vms", "/vms/web", "/vms/web/logs/stream", "/live", "/vms/web/workspace/export", "/assets/app.js", "/nothing", "/vms/web/terminal/socket"} {
		resp, body := s.get(path)
		if resp.StatusCode != http.StatusUnauthorized || !strings.Contains(body, "banger web") || strings.Contains(body, "aaaaaaaaaaaa") {
			t.Errorf("%s: %s: %s", path, resp.Status, body)
		}
	}
	if resp, _ := s.do("POST", "/vms/web/delete", "force=1", nil); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a change: %s", resp.Status)
	}
	if calls := s.Calls(); len(calls) != 0 {
		t.Errorf("the daemon was asked: %q", calls)
	}
}

func TestLogin(t *testing.T) {
	s := newSite(t)
	ticket := s.ui.Ticket()
	resp, _ := s.get("/login?ticket=" + ticket)
	cookie := resp.Header.Get("Set-Cookie")
	if resp.StatusCode != 200 || !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Strict") {
		t.Fatalf("%s, cookie %q", resp.Status, cookie)
	}
	if resp, body := s.get("/"); resp.StatusCode != 200 || !strings.Contains(body, "aaaaaaaaaaaa") {
		t.Errorf("logged in: %s", resp.Status)
	}
	if resp, _ := s.get("/login?ticket=" + ticket); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a ticket is good twice: %s", resp.Status)
	}
	t.Run("a login outlives the daemon", func(t *testing.T) {
		second := &site{Daemon: s.Daemon, t: t, key: s.key}
		second.open()
		change := func(r *http.Request) {
			value, _, _ := strings.Cut(cookie, ";")
			_, value, _ = strings.Cut(value, "=")
			r.AddCookie(&http.Cookie{Name: "banger-" + r.URL.Port(), Value: value})
		}
		if resp, _ := second.do("GET", "/", "", change); resp.StatusCode != 200 {
			t.Errorf("%s", resp.Status)
		}
	})
	t.Run("a cookie that was made up or changed is none", func(t *testing.T) {
		value, _, _ := strings.Cut(cookie, ";")
		_, value, _ = strings.Cut(value, "=")
		for _, bad := range []string{"", "x", "9999999999.A.B", "9" + value, value + "A"} {
			fresh := &site{Daemon: s.Daemon, t: t, base: s.base, http: &http.Client{}}
			resp, _ := fresh.do("GET", "/", "", func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "banger-" + r.URL.Port(), Value: bad}) })
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%q: %s", bad, resp.Status)
			}
		}
	})
	t.Run("who logs out is out", func(t *testing.T) {
		s.post("/logout", nil)
		if resp, _ := s.get("/"); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s", resp.Status)
		}
	})
	t.Run("a damaged key is refused and kept", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := web.NewUI(web.UIConfig{Key: path}); !errkind.Is(err, api.KindDataLoss) {
			t.Errorf("got %v", err)
		}
	})
}

func TestOtherSites(t *testing.T) {
	s := newSite(t)
	s.login()
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for _, c := range []struct {
		name, method, path string
		change             func(*http.Request)
		want               int
	}{
		{"a rebound name", "GET", "/", func(r *http.Request) { r.Host = "evil.example:7777" }, 421},
		{"a name that looks like an address", "GET", "/", func(r *http.Request) { r.Host = "127.0.0.1.evil.example" }, 421},
		{"a form of another site", "POST", "/vms/web/delete", header("Origin", "http://evil.example"), 403},
		{"a form of another port", "POST", "/vms/web/delete", header("Origin", "http://127.0.0.1:1"), 403},
		{"a form of nobody", "POST", "/vms/web/delete", func(r *http.Request) { r.Header.Del("Origin") }, 403},
		{"a form in a sandbox", "POST", "/vms/web/delete", header("Origin", "null"), 403},
		{"a form without a token", "POST", "/vms/web/delete", nil, 403},
		{"a terminal for another site", "GET", "/vms/web/terminal/socket", func(r *http.Request) {
			r.Header.Set("Upgrade", "websocket")
			r.Header.Set("Origin", "http://evil.example")
		}, 403},
		{"a terminal for nobody", "GET", "/vms/web/terminal/socket", header("Upgrade", "websocket"), 403},
	} {
		t.Run(c.name+" is refused", func(t *testing.T) {
			if resp, body := s.do(c.method, c.path, "force=1", c.change); resp.StatusCode != c.want {
				t.Errorf("%s, want %d: %s", resp.Status, c.want, body)
			}
		})
	}
	if calls := s.Calls(); len(calls) != 0 {
		t.Errorf("the daemon was asked: %q", calls)
	}
	resp, _ := s.get("/")
	policy := resp.Header.Get("Content-Security-Policy")
	if strings.Contains(policy, "unsafe") || !strings.Contains(policy, "default-src 'none'; script-src 'self'") || !strings.Contains(policy, "frame-ancestors 'none'") {
		t.Errorf("policy %q", policy)
	}
	if got := resp.Header.Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("other sites may read: %q", got)
	}
	if resp, _ := s.get("/vms/web/terminal"); !strings.Contains(resp.Header.Get("Content-Security-Policy"), "script-src 'self';") {
		t.Errorf("the terminal's policy is %q", resp.Header.Get("Content-Security-Policy"))
	}
}

func TestPagesOfAHostileGuest(t *testing.T) {
	s := newSite(t)
	s.login()
	for _, path := range []string{"/", "/vms", "/vms/web", "/vms/web/ports", "/vms/web/logs", "/vms/web/logs?source=vmm", "/vms/web/terminal",
		"/vms/web/workspace", "/vms/web/workspace/status", "/vms/web/workspace/diff", "/create", "/images", "/kernels", "/operations",
		"/operations/cccccccccccc", "/doctor", "/doctor/summary", "/create?name=" + url.QueryEscape(evil)} {
		t.Run(path, func(t *testing.T) {
			resp, body := s.get(path)
			if resp.StatusCode != 200 {
				t.Fatalf("%s: %s", resp.Status, body)
			}
			for _, bad := range []string{"<script>alert", "\x1b", "\u202e", "href=\"javascript:"} {
				if strings.Contains(body, bad) {
					t.Errorf("%q is on the page", bad)
				}
			}
			if len(body) > 100<<10 {
				t.Errorf("%d bytes", len(body))
			}
		})
	}
	t.Run("a log is plain text without commands to a terminal, and lines without an end are cut", func(t *testing.T) {
		resp, body := s.get("/vms/web/logs/stream")
		if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain") || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("type %q", kind)
		}
		lines := strings.Split(body, "\n")
		if len(lines) != 4 || lines[0] != "<script>alert(1)</script>\uFFFD" || !strings.HasSuffix(lines[1], "(cut)") || len(lines[1]) > 5000 || lines[2] != "last" {
			t.Errorf("%d lines, the first %q, the last %q", len(lines), lines[0], lines[len(lines)-2])
		}
	})
	t.Run("a download has a plain name", func(t *testing.T) {
		resp, body := s.get("/vms/web/workspace/export?format=patch")
		if got := resp.Header.Get("Content-Disposition"); !strings.HasPrefix(got, "attachment;") || strings.ContainsAny(got, "\r\n\x1b") || !strings.Contains(body, "diff --git") {
			t.Errorf("%q: %q", got, body)
		}
	})
}

func TestActions(t *testing.T) {
	s := newSite(t)
	s.login()
	for _, method := range []string{api.MethodVMStart, api.MethodVMStop, api.MethodVMRestart, api.MethodVMKill, api.MethodVMSet, api.MethodVMPause, api.MethodVMResume} {
		s.Result(method, api.VM{Name: "web"})
	}
	for _, method := range []string{api.MethodImageDelete, api.MethodKernelDelete, api.MethodOperationCancel} {
		s.Result(method, api.Empty{})
	}
	s.Result(api.MethodFix, api.Doctor{})
	for _, method := range []string{api.MethodVMBegin, api.MethodImageBuildBegin, api.MethodKernelImportBegin} {
		s.Result(method, api.OperationRef{ID: "cccccccccccc"})
	}
	s.Error(api.MethodVMDelete, errkind.WithHint(errkind.New(api.KindPrecondition, "it has unexported work"), "export it"))
	for _, c := range []struct{ path, form, method, next string }{
		{"/vms/web/start", "", api.MethodVMStart, "/vms/web"},
		{"/vms/web/stop", "", api.MethodVMStop, "/vms/web"},
		{"/vms/web/restart", "", api.MethodVMRestart, "/vms/web"},
		{"/vms/web/pause", "", api.MethodVMPause, "/vms/web"},
		{"/vms/web/resume", "", api.MethodVMResume, "/vms/web"},
		{"/vms/web/kill", "", api.MethodVMKill, "/vms/web"},
		{"/vms/web/set", "memory=512M&publish=8080:80&auto_stop=default&nat=no", api.MethodVMSet, "/vms/web"},
		{"/vms/web/set", "memory=512", "", "less than 1M"},
		{"/vms/web/delete", "", api.MethodVMDelete, "unexported work"},
		{"/create", "name=new&vcpu=2&memory=1G&env=A%3D1%0AB%3D2&auto_stop=30m&start=1", api.MethodVMBegin, "/operations/cccccccccccc"},
		{"/create", "name=No_Name", "", "No_Name"},
		{"/create", "publish=x", "", "x"},
		{"/create", "auto_stop=soon", "", "soon"},
		{"/images", "name=mine&packages=vim", api.MethodImageBuildBegin, "/operations/cccccccccccc"},
		{"/images/debian/delete", "", api.MethodImageDelete, "/images"},
		{"/kernels", "deb=linux-image-amd64", api.MethodKernelImportBegin, "/operations/cccccccccccc"},
		{"/kernels/cloud/delete", "", api.MethodKernelDelete, "/kernels"},
		{"/operations/cccccccccccc/cancel", "", api.MethodOperationCancel, "/operations/cccccccccccc"},
		{"/doctor/fix", "", api.MethodFix, "/doctor"},
	} {
		t.Run(c.path+" "+c.form, func(t *testing.T) {
			values, err := url.ParseQuery(c.form)
			if err != nil {
				t.Fatal(err)
			}
			resp, body := s.post(c.path, values)
			if !strings.Contains(body, c.next) || strings.HasPrefix(c.next, "/") != (resp.StatusCode == 200) {
				t.Errorf("%s: %s", resp.Status, body)
			}
			if calls := s.Calls(); c.method != "" && calls[len(calls)-1] != c.method {
				t.Errorf("%s was called last", calls[len(calls)-1])
			}
		})
	}
	var set api.VMSet
	s.Params(api.MethodVMSet, &set)
	if set.MemMiB != 512 || *set.AutoStopMS != -1 || *set.NAT || len(*set.Publish) != 1 || set.Group != nil {
		t.Errorf("set %+v", set)
	}
	var made api.VMCreate
	s.Params(api.MethodVMBegin, &made)
	if made.MemMiB != 1024 || len(made.Env) != 2 || *made.AutoStopMS != 1_800_000 || !made.Start || made.NAT != nil {
		t.Errorf("created %+v", made)
	}
	_, page := s.get("/create?name=new&memory=1G&nat=no&publish=8080:80&env=A%3Db+c&auto_stop=never&cold=1")
	if want := `banger vm create --name new --memory 1GiB --nat=false --publish 8080:80 --env &#39;A=b c&#39; --auto-stop never --cold</pre>`; !strings.Contains(page, want) {
		t.Errorf("no %q in %s", want, page)
	}
	s.Error(api.MethodVMGet, errkind.New(api.KindNotFound, "there is no VM"))
	if resp, body := s.get("/vms/none"); resp.StatusCode != 404 || !strings.Contains(body, "there is no VM") {
		t.Errorf("%s: %s", resp.Status, body)
	}
}

func TestLive(t *testing.T) {
	s := newSite(t)
	s.login()
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.base+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Last-Event-ID", "5")
	resp, err := s.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); ; {
		if !lines.Scan() {
			t.Fatalf("the stream has ended: %v", lines.Err())
		}
		if lines.Text() == "id: 8" {
			break
		}
	}
	var p api.Events
	s.Params(api.MethodEvents, &p)
	if p.After != 5 || !p.Follow {
		t.Errorf("asked for %+v", p)
	}
}

func TestTerminal(t *testing.T) {
	s := newSite(t)
	s.login()
	s.On(api.MethodVMExec, func(c *fakedaemon.Call) {
		c.Reply(guestapi.ExecStarted{PID: 9})
		fr := frame.NewReader(c)
		for {
			kind, payload, err := fr.Next()
			switch {
			case err != nil:
				return
			case kind == frame.Stdin && string(payload) == "exit\r":
				c.Exit(frame.ExitStatus{Code: 3})
				return
			case kind == frame.Stdin:
				c.Frames().Write(frame.Stdout, append([]byte("echo "), payload...))
			case kind == frame.Resize:
				c.Frames().Write(frame.Stdout, append([]byte("size "), payload...))
			}
		}
	})
	ctx := t.Context()
	ws, _, err := websocket.Dial(ctx, strings.Replace(s.base, "http", "ws", 1)+"/vms/web/terminal/socket",
		&websocket.DialOptions{HTTPClient: s.http, HTTPHeader: http.Header{"Origin": {s.base}}})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	say := func(kind websocket.MessageType, text, want string) {
		t.Helper()
		if err := ws.Write(ctx, kind, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if want == "" {
			return
		}
		if _, got, err := ws.Read(ctx); err != nil || string(got) != want {
			t.Errorf("%q, %v after %q", got, err, text)
		}
	}
	say(websocket.MessageText, `{"rows":24,"cols":80}`, "")
	say(websocket.MessageBinary, "ls\r", "echo ls\r")
	say(websocket.MessageText, `{"rows":30,"cols":90}`, `size {"rows":30,"cols":90}`)
	say(websocket.MessageBinary, "exit\r", `{"end":"the shell ended with status 3"}`)
	var p api.VMExec
	s.Params(api.MethodVMExec, &p)
	if !p.TTY || !p.Login || p.Size.Rows != 24 || p.Size.Cols != 80 {
		t.Errorf("began %+v", p)
	}
}

func TestAssets(t *testing.T) {
	s := newSite(t)
	s.login()
	total := 0
	for _, path := range []string{"/", "/assets/app.css", "/assets/app.js", "/assets/icon.svg"} {
		resp, body := s.get(path)
		if resp.StatusCode != 200 {
			t.Errorf("%s: %s", path, resp.Status)
		}
		total += len(body)
	}
	if total > 300<<10 {
		t.Errorf("a page weighs %d bytes", total)
	}
	resp, _ := s.get("/assets/xterm.js")
	if again, body := s.do("GET", "/assets/xterm.js", "", func(r *http.Request) { r.Header.Set("If-None-Match", resp.Header.Get("ETag")) }); again.StatusCode != 304 || body != "" {
		t.Errorf("%s, %d bytes", again.Status, len(body))
	}
	if _, body := s.get("/assets/xterm.LICENSE"); !strings.Contains(body, "Copyright") {
		t.Errorf("no licence: %q", body)
	}
}
