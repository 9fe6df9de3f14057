package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	cdplog "github.com/chromedp/cdproto/log"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browserTimeout bounds everything that one test does in the browser, on a busy machine.
const browserTimeout = 4 * time.Minute

// browser is a headless Chromium. What its pages complain of fails the test: an error of a script, and what the content security
// policy has refused.
type browser struct {
	t    *testing.T
	ctx  context.Context
	base string
}

// serveWeb has the daemon of h serve the web UI at one address until the test ends: by default its port is another one after
// each start.
func (h house) serveWeb(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	h.must(t, "daemon", "stop")
	t.Setenv("BANGER_WEB_LISTEN", l.Addr().String())
	h.must(t, "daemon", "start")
	t.Cleanup(func() { h.must(t, "daemon", "stop") })
}

// newBrowser starts a browser that is logged in to the daemon of h.
func newBrowser(t *testing.T, h house) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium: `make test-deps` installs it")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WindowSize(1280, 900),
		chromedp.WSURLReadTimeout(time.Minute), chromedp.UserDataDir(t.TempDir()))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithListener(func(e any) {
		switch e := e.(type) {
		case *cdpruntime.EventExceptionThrown:
			t.Errorf("a script failed: %+v", e.ExceptionDetails)
		case *cdplog.EventEntryAdded:
			if e.Entry.Source == "security" {
				t.Errorf("a page was refused something: %s", e.Entry.Text)
			}
		}
	}))
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, browserTimeout)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx}
	if err := chromedp.Do(ctx); err != nil { // the browser lives as long as this context
		t.Fatalf("start the browser: %v", err)
	}
	link := h.must(t, "web")
	b.base = link[:strings.Index(link, "/login")]
	b.do("log in", chromedp.Navigate(link), chromedp.WaitVisible("#host"))
	return b
}

// do runs actions, and fails the test with a screenshot when they do not come to an end.
func (b *browser) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.shot("failed")
		b.t.Fatalf("%s: %v", what, err)
	}
}

// shot keeps a screenshot in BANGER_SHOTS, where that is set.
func (b *browser) shot(name string) {
	b.t.Helper()
	dir := os.Getenv("BANGER_SHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Logf("screenshot %s: %v", name, err)
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		b.t.Error(err)
	}
}

// open goes to a page and waits for something on it.
func (b *browser) open(path, selector string) {
	b.t.Helper()
	b.do("open "+path, chromedp.Navigate(b.base+path), chromedp.WaitVisible(selector))
}

// shows waits until the text of the page matches what JavaScript says of it.
func (b *browser) shows(what, condition string) {
	b.t.Helper()
	if _, err := chromedp.Run(b.ctx, chromedp.Poll[bool](condition, chromedp.WithPollingTimeout(time.Minute))); err != nil {
		b.shot("failed")
		b.t.Fatalf("%s: %v", what, err)
	}
}

// types types a line into the terminal.
func (b *browser) types(line string) {
	b.t.Helper()
	insert := func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, input.InsertText, input.InsertTextParams{Text: line})
		return chromedp.Void{}, err
	}
	b.do("type "+line, chromedp.Focus(".xterm-helper-textarea"), insert, chromedp.KeyEvent("\r"))
}

// text is the condition that an element has that text in it.
func text(selector, part string) string {
	return fmt.Sprintf("!!document.querySelector(%q)?.textContent.includes(%q)", selector, part)
}

// press clicks a button and confirms what is asked.
func (b *browser) press(selector string) {
	b.t.Helper()
	b.do("press "+selector, chromedp.Click(selector, chromedp.NodeVisible),
		chromedp.Click("#confirm[open] button.danger", chromedp.NodeVisible))
}

// TestWeb uses the pages as a person does while a VM lives: form, terminal, life cycle, logs; and a phone's width. Buttons that it does not
// press are sent by TestActions of internal/web.
func TestWeb(t *testing.T) {
	h := guests(t)
	h.serveWeb(t)
	b := newBrowser(t, h)
	b.create()
	b.terminal(h)
	b.life(h)
	b.open("/images", "#images")
	b.shot("images")
	b.open("/kernels", "#kernels")
	b.shot("kernels")
	b.open("/operations", "#operations")
	b.shot("operations")
	b.open("/doctor", "#checks")
	b.shot("doctor")
}

// create fills the form in and follows the creation.
func (b *browser) create() {
	b.open("/create", "#create")
	b.do("fill the form in", chromedp.SendKeys("input[name=name]", "seen"), chromedp.SendKeys("input[name=memory]", "256M"),
		chromedp.SendKeys("input[name=vcpu]", "none"))
	b.shows("the form says what is wrong", text("#preview", "is not a number"))
	b.do("put it right", chromedp.SendKeys("input[name=vcpu]", "\b\b\b\b1"))
	b.shows("the command is shown", text("#preview", "banger vm create --name seen --vcpu 1 --memory 256MiB --start"))
	b.shot("create")
	b.do("create", chromedp.Click("#create button"), chromedp.WaitVisible("#operation"))
	b.do("load the page again", chromedp.Reload(), chromedp.WaitVisible("#operation"))
	b.shows("it is there", text("#operation", "To seen"))
	b.shot("operation")
}

// terminal types into a shell, runs a program of a whole screen in it, and finds a shell again after the daemon was away.
func (b *browser) terminal(h house) {
	const screen = "#terminal .xterm-rows"
	b.open("/vms/seen/terminal", "#terminal .xterm-screen")
	b.shows("the shell is there", text("#terminal-state", "connected"))
	b.types("echo is$((40+2)); stty size")
	b.shows("the shell answers", text(screen, "is42"))
	b.shows("it knows the size", `/[2-9]\d 1\d\d/.test(document.querySelector("#terminal .xterm-rows").textContent)`)
	b.types(`printf '\033[?1049h\033[2J\033[5;7Hother%sscreen' 42; sleep 1; printf '\033[?1049l'`)
	b.shows("a program takes the whole screen", text(screen, "other42screen"))
	b.shows("and gives it back", "!"+text(screen, "other42screen")+" && "+text(screen, "is42"))
	b.shot("terminal")
	h.must(b.t, "daemon", "stop")
	b.shows("the page waits", text("#terminal-state", "the daemon is away"))
	h.must(b.t, "daemon", "start")
	b.shows("there is a shell again", text("#terminal-state", "connected"))
	b.types("echo again$((40+2))")
	b.shows("it answers", text(screen, "again42"))
}

// life presses the buttons of a VM's page. Nothing loads the page again: what changes is told.
func (b *browser) life(h house) {
	b.open("/vms/seen", "#head")
	b.shows("it runs", text("#head .state", "running"))
	b.shows("the guest was asked for its ports", text("#ports", "22"))
	b.shows("statistics are drawn", `document.querySelector("#stats path:last-child")?.getAttribute("d").length > 40`)
	b.shot("vm")
	b.do("ask for what cannot be", chromedp.Click("#delete summary"))
	b.press("#delete button.danger")
	b.shows("the refusal is shown, with what to do", text("#toast", "--force"))
	b.do("look at the dashboard", chromedp.Navigate(b.base+"/"), chromedp.WaitVisible("#vms"))
	b.shows("doctor has answered", text("#findings", "ok"))
	b.shot("dashboard")
	b.open("/vms/seen/logs", "#log")
	b.shows("the console is shown", `document.querySelectorAll("#log div").length > 0`)
	b.shot("logs")
	b.open("/vms/seen", "#stop")
	b.do("pause it", chromedp.Click("#pause"))
	b.shows("it is paused", text("#head .state", "paused"))
	b.do("resume it", chromedp.WaitVisible("#resume"), chromedp.Click("#resume"))
	b.shows("it goes on", text("#head .state", "running"))
	b.press("#stop")
	b.shows("it has stopped", text("#head .state", "stopped"))
	b.do("start it", chromedp.Click("#start"))
	b.shows("it runs again", text("#head .state", "running"))
	b.do("phone", chromedp.EmulateViewport(390, 800))
	b.shows("nothing is wider than a phone", `document.documentElement.scrollWidth <= 390`)
	b.shot("phone")
	b.do("desk", chromedp.EmulateViewport(1280, 900))
	b.press("#kill")
	b.shows("it has ended", text("#head .state", "stopped"))
	b.do("delete", chromedp.Click("#delete summary"), chromedp.Click("#delete input[name=force]"))
	b.press("#delete button.danger")
	b.do("the list is shown", chromedp.WaitVisible("#vms"))
	if out := h.must(b.t, "vm", "list", "-q"); strings.Contains(out, "seen") {
		b.t.Errorf("still there: %s", out)
	}
}
