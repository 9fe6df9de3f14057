package pages

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/errkind"
)

func (s *Site) createRoutes(mux *http.ServeMux) {
	mux.Handle("GET /create", s.page("create", "Create a VM", createPage))
	mux.Handle("POST /create", s.action(func(ctx context.Context, c *client.Client, r *http.Request) (string, error) {
		p, err := createParams(r)
		if err != nil {
			return "", err
		}
		op, err := c.VMCreateBegin(ctx, p)
		return "/operations/" + op.ID, err
	}))
}

// createView is the form, with what has been filled in.
type createView struct {
	Params   api.VMCreate
	Form     map[string]string
	Images   []api.Image
	Kernels  []api.Kernel
	Defaults map[string]string // of the configuration, by key
	Problem  *api.Error        // with what is filled in
}

func createPage(ctx context.Context, c *client.Client, r *http.Request) (any, error) {
	v := createView{Form: map[string]string{}, Defaults: map[string]string{}}
	var err error
	if v.Params, err = createParams(r); err != nil {
		v.Problem = errkind.Wire(err)
	}
	if len(r.Form) == 0 {
		v.Params.Start = true // nothing is filled in yet
	}
	for name := range r.Form {
		v.Form[name] = Clean(r.FormValue(name))
	}
	if v.Images, err = c.ImageList(ctx); err != nil {
		return nil, err
	}
	if v.Kernels, err = c.KernelList(ctx); err != nil {
		return nil, err
	}
	l, err := c.Config(ctx)
	for _, value := range l.Values {
		v.Defaults[value.Key] = value.Value
	}
	return v, err
}

// createParams is what the form means. It is checked as the command line checks its flags; the daemon checks the rest.
func createParams(r *http.Request) (api.VMCreate, error) {
	f := form{r: r}
	p := api.VMCreate{
		Name: f.text("name"), Image: f.text("image"), Kernel: f.text("kernel"), VMM: f.text("vmm"), Init: f.text("init"),
		VCPU: f.number("vcpu"), MemMiB: f.mib("memory"), RootSize: f.bytes("root"), DiskSize: f.bytes("disk"), NAT: f.choice("nat"),
		Group: f.text("group"), Publish: f.list("publish"), Env: f.list("env"), AutoStopMS: f.autoStop(), Start: f.has("start"), Cold: f.has("cold"),
	}
	if p.Name != "" {
		f.check(banger.CheckName("VM", p.Name))
	}
	for _, text := range p.Publish {
		_, err := banger.ParsePublish(text)
		f.check(err)
	}
	return p, f.err
}

// form reads the fields of a form, and keeps the first thing that is wrong with them.
type form struct {
	r   *http.Request
	err error
}

func (f *form) check(err error) {
	if f.err == nil {
		f.err = err
	}
}

func (f *form) text(name string) string { return strings.TrimSpace(f.r.FormValue(name)) }

func (f *form) has(name string) bool { return f.text(name) != "" }

// given reports whether the form has that field at all, filled in or not.
func (f *form) given(name string) bool {
	f.r.FormValue(name) // parses the form
	return f.r.Form.Has(name)
}

// list is a field with an item a line.
func (f *form) list(name string) []string {
	var out []string
	for line := range strings.Lines(f.text(name)) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

func (f *form) number(name string) int {
	text := f.text(name)
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		f.check(errkind.New(api.KindInvalid, "%s: %q is not a number of 1 or more", name, text))
	}
	return n
}

func (f *form) bytes(name string) int64 {
	text := f.text(name)
	if text == "" {
		return 0
	}
	n, err := config.ParseSize(text)
	f.check(err)
	return n
}

func (f *form) mib(name string) int {
	n := f.bytes(name)
	if n != 0 && n < 1<<20 {
		f.check(errkind.WithHint(errkind.New(api.KindInvalid, "%s: %s is less than 1M", name, f.text(name)), "give a unit, such as 512M"))
	}
	return int(n >> 20)
}

// choice is a field that is yes, no, or left as it is.
func (f *form) choice(name string) *bool {
	text := f.text(name)
	if text == "" {
		return nil
	}
	yes := text == "yes"
	return &yes
}

// autoStop is a duration, "never", "default", or nothing.
func (f *form) autoStop() *int64 {
	var ms int64
	switch text := f.text("auto_stop"); text {
	case "":
		return nil
	case "never":
	case "default":
		ms = -1
	default:
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			f.check(errkind.WithHint(errkind.New(api.KindInvalid, "auto-stop: %q is no duration", text), "write it as 30m or 2h, or never"))
		}
		ms = d.Milliseconds()
	}
	return &ms
}

// commandLine is the command that creates the same VM.
func commandLine(p api.VMCreate) string {
	words := []string{"banger vm create"}
	add := func(flag, value string) {
		if value != "" {
			words = append(words, "--"+flag+" "+quote(value))
		}
	}
	sizeOf := func(n int64) string {
		if n == 0 {
			return ""
		}
		return config.Size(n).String()
	}
	add("name", p.Name)
	add("image", p.Image)
	add("kernel", p.Kernel)
	add("vmm", p.VMM)
	add("init", p.Init)
	if p.VCPU != 0 {
		add("vcpu", strconv.Itoa(p.VCPU))
	}
	add("memory", sizeOf(int64(p.MemMiB)<<20))
	add("root-size", sizeOf(p.RootSize))
	add("disk-size", sizeOf(p.DiskSize))
	if p.NAT != nil {
		words = append(words, "--nat="+strconv.FormatBool(*p.NAT))
	}
	add("group", p.Group)
	for _, text := range p.Publish {
		add("publish", text)
	}
	for _, text := range p.Env {
		add("env", text)
	}
	if p.AutoStopMS != nil && *p.AutoStopMS == 0 {
		add("auto-stop", "never")
	} else if p.AutoStopMS != nil && *p.AutoStopMS > 0 {
		add("auto-stop", (time.Duration(*p.AutoStopMS) * time.Millisecond).String())
	}
	if p.Start {
		words = append(words, "--start")
	}
	if p.Cold {
		words = append(words, "--cold")
	}
	return strings.Join(words, " ")
}

// quote writes a word so that a POSIX shell takes it as one.
func quote(word string) string {
	plain := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=@,+", r))
	}
	if word != "" && !strings.ContainsFunc(word, plain) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
