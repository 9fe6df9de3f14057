package pages

import (
	"context"
	"net/http"
	"net/url"
	"slices"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/web/auth"
)

func (s *Site) vmRoutes(mux *http.ServeMux) {
	mux.Handle("GET /vms", s.page("vms", "VMs", func(ctx context.Context, c *client.Client, _ *http.Request) (any, error) { return vmRows(ctx, c) }))
	mux.Handle("GET /vms/{ref}", s.page("vm", "VM", vmPage))
	mux.Handle("GET /vms/{ref}/ports", s.fragment("vm", "ports", func(ctx context.Context, c *client.Client, r *http.Request) (any, error) {
		return c.VMPorts(ctx, r.PathValue("ref"))
	}))
	mux.Handle("GET /vms/{ref}/logs", s.page("logs", "logs", logsPage))
	mux.Handle("GET /vms/{ref}/logs/stream", http.HandlerFunc(s.streamLogs))
	mux.Handle("GET /vms/{ref}/terminal", styled(s.page("terminal", "terminal", func(ctx context.Context, c *client.Client, r *http.Request) (any, error) {
		return c.VMGet(ctx, r.PathValue("ref"))
	})))
	for verb, do := range map[string]func(ctx context.Context, c *client.Client, ref string) error{
		"pause": func(ctx context.Context, c *client.Client, ref string) error {
			_, err := c.VMPause(ctx, ref)
			return err
		},
		"resume": func(ctx context.Context, c *client.Client, ref string) error {
			_, err := c.VMResume(ctx, ref)
			return err
		},
		"start": func(ctx context.Context, c *client.Client, ref string) error {
			_, err := c.VMStart(ctx, ref)
			return err
		},
		"stop": func(ctx context.Context, c *client.Client, ref string) error {
			_, err := c.VMStop(ctx, api.VMStop{Ref: api.Ref{Ref: ref}})
			return err
		},
		"restart": func(ctx context.Context, c *client.Client, ref string) error {
			_, err := c.VMRestart(ctx, api.VMRestart{Ref: api.Ref{Ref: ref}})
			return err
		},
		"kill": func(ctx context.Context, c *client.Client, ref string) error {
			_, err := c.VMKill(ctx, api.VMKill{Ref: api.Ref{Ref: ref}})
			return err
		},
	} {
		mux.Handle("POST /vms/{ref}/"+verb, s.action(func(ctx context.Context, c *client.Client, r *http.Request) (string, error) {
			ref := r.PathValue("ref")
			return vmPath(ref), do(ctx, c, ref)
		}))
	}
	mux.Handle("POST /vms/{ref}/set", s.action(setVM))
	mux.Handle("POST /vms/{ref}/delete", s.action(func(ctx context.Context, c *client.Client, r *http.Request) (string, error) {
		return "/vms", c.VMDelete(ctx, api.VMDelete{Ref: api.Ref{Ref: r.PathValue("ref")}, Force: r.PostFormValue("force") != ""})
	}))
}

// styled allows a page the style elements that xterm.js makes.
func styled(page http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", auth.Policy("'unsafe-inline'"))
		page.ServeHTTP(w, r)
	})
}

func vmPath(ref string) string { return "/vms/" + url.PathEscape(ref) }

// vmView is what the page of a VM shows.
type vmView struct {
	api.VM
	Stats      *api.VMStats
	Operations []api.Operation
	Events     []api.Event
}

func vmPage(ctx context.Context, c *client.Client, r *http.Request) (any, error) {
	var v vmView
	var err error
	if v.VM, err = c.VMGet(ctx, r.PathValue("ref")); err != nil {
		return nil, err
	}
	stats, err := c.VMStats(ctx)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(stats, func(st api.VMStats) bool { return st.ID == v.ID }); i >= 0 {
		v.Stats = &stats[i]
	}
	ops, err := c.OperationList(ctx)
	if err != nil {
		return nil, err
	}
	for _, op := range ops {
		if op.Subject == v.Name && len(v.Operations) < 5 {
			v.Operations = append(v.Operations, op)
		}
	}
	v.Events, err = latest(ctx, c, v.ID, 10)
	return v, err
}

func setVM(ctx context.Context, c *client.Client, r *http.Request) (string, error) {
	f := form{r: r}
	p := api.VMSet{
		Ref: api.Ref{Ref: r.PathValue("ref")}, Name: f.text("name"), VCPU: f.number("vcpu"), MemMiB: f.mib("memory"),
		RootSize: f.bytes("root"), DiskSize: f.bytes("disk"), NAT: f.choice("nat"), AutoStopMS: f.autoStop(), Restart: f.has("restart"),
	}
	if f.given("publish") {
		publish := f.list("publish")
		p.Publish = &publish
	}
	if f.given("group") {
		group := f.text("group")
		p.Group = &group
	}
	if f.err != nil {
		return "", f.err
	}
	v, err := c.VMSet(ctx, p)
	if err != nil {
		return "", err
	}
	return vmPath(v.Name), nil
}

// logView is what the page of a VM's logs shows.
type logView struct {
	api.VM
	Source string
}

// logSources are the logs that a VM has.
var logSources = []string{"console", "vmm"}

func logsPage(ctx context.Context, c *client.Client, r *http.Request) (any, error) {
	v, err := c.VMGet(ctx, r.PathValue("ref"))
	return logView{v, source(r)}, err
}

func source(r *http.Request) string {
	if s := r.FormValue("source"); s != "" {
		return s
	}
	return logSources[0]
}

// logTail is how many lines of a log are sent before what is added.
const logTail = 2000

// streamLogs sends a VM's log as plain text, and what is added to it until the browser leaves.
func (s *Site) streamLogs(w http.ResponseWriter, r *http.Request) {
	c, err := s.c.Connect(r.Context())
	if err == nil && !slices.Contains(logSources, source(r)) {
		err = errkind.New(api.KindInvalid, "there is no log %q", source(r))
	}
	if err != nil {
		s.json(w, status(err), errkind.Wire(err))
		return
	}
	log, err := c.VMLogs(r.Context(), api.VMLogs{Ref: api.Ref{Ref: r.PathValue("ref")}, Source: source(r), Tail: logTail, Follow: true})
	if err != nil {
		s.json(w, status(err), errkind.Wire(err))
		return
	}
	defer log.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err := copyText(w, log); err != nil {
		s.c.Log.Debug("send a log to a browser", "err", err)
	}
}
