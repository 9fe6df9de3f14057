package cli_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
	"github.com/banger-vm/banger/internal/errkind"
)

// build is a session that runs in the VM web.
func build() api.Session {
	return api.Session{VM: "web", VMID: web().ID, Session: guestapi.Session{
		ID: "0123456789ab", Name: "build", State: guestapi.SessionRunning, Argv: []string{"make", "all\n"}, Tags: []string{"ci"}, TTY: true, Stdin: true,
		PID: 7, Created: time.Now(), Started: time.Now(), LogEnd: 3,
	}}
}

// sessions is a daemon whose VM web has the session build.
func sessions(t *testing.T) *fakedaemon.Daemon {
	d := fakedaemon.Start(t)
	vms(d, web())
	d.Result(api.MethodSessionGet, build())
	return d
}

// output sends text as records of one stream, from an offset on.
func output(c *fakedaemon.Call, at int64, stream frame.Type, text string) {
	c.Frames().Write(frame.Output, frame.Record{Offset: at, Time: time.Unix(1700000000, 0), Stream: stream, Data: []byte(text)}.Append(nil))
}

func TestSessionStart(t *testing.T) {
	t.Run("all that is said of it is passed on", func(t *testing.T) {
		d := sessions(t)
		d.Result(api.MethodSessionStart, build())
		c := banger(t, d).ok("vm", "session", "start", "web", "--name", "build", "--cwd", "/srv", "--env", "A=1", "--tag", "ci,x", "--user", "www",
			"--stdin", "pty", "--require", "git,make", "--restart", "on-failure", "--timeout", "1m", "--log-size", "1M", "--", "make", "-j4")
		if c.stdout != "build\n" {
			t.Errorf("%q", c.stdout)
		}
		var got api.SessionStart
		d.Params(api.MethodSessionStart, &got)
		want := guestapi.SessionSpec{
			ExecSpec: guestapi.ExecSpec{Argv: []string{"make", "-j4"}, Cwd: "/srv", Env: []string{"A=1"}, User: "www", TTY: true, TimeoutMS: 60_000},
			Name:     "build", Tags: []string{"ci", "x"}, Require: []string{"git", "make"}, RestartOnFailure: true, LogLimit: 1 << 20,
		}
		if diff := cmp.Diff(want, got.SessionSpec); diff != "" || got.Ref.Ref != web().ID {
			t.Error(got.Ref, diff)
		}
	})
	t.Run("a command that is missing is told, with its status", func(t *testing.T) {
		d := sessions(t)
		d.Result(api.MethodSessionStart, api.Session{Session: guestapi.Session{Exit: &frame.ExitStatus{Code: 127, Error: "no such command"}}})
		banger(t, d).fails(127, "no such command", "vm", "session", "start", "web", "--", "nope")
	})
	t.Run("one that has ended already was started", func(t *testing.T) {
		d := sessions(t)
		s := build()
		s.State, s.Exit = guestapi.SessionExited, &frame.ExitStatus{Code: 3}
		d.Result(api.MethodSessionStart, s)
		banger(t, d).ok("vm", "session", "start", "web", "--", "false")
	})
	for want, args := range map[string][]string{
		"--stdin is closed, pipe or pty": {"web", "--stdin", "tty", "--", "x"},
		"--restart is no or on-failure":  {"web", "--restart", "always", "--", "x"},
		"--timeout -1s is too short":     {"web", "--timeout", "-1s", "--", "x"},
		"is not UTF-8":                   {"web", "--", "x\xff"},
		"needs a VM and a command":       {"web"},
	} {
		t.Run(want, func(t *testing.T) {
			banger(t, sessions(t)).fails(64, want, append([]string{"vm", "session", "start"}, args...)...)
		})
	}
}

func TestSessionListAndShow(t *testing.T) {
	d := sessions(t)
	other := build()
	other.Name, other.State, other.Tags, other.Exit = "old", guestapi.SessionExited, nil, &frame.ExitStatus{Code: 137, Signal: "KILL"}
	d.Result(api.MethodSessionList, api.SessionList{Sessions: []api.Session{build(), other}})
	c := banger(t, d).ok("vm", "session", "list", "web")
	for _, want := range []string{"build", "make all", "running", "exited (KILL)"} {
		if !strings.Contains(c.stdout, want) {
			t.Errorf("no %q in\n%s", want, c.stdout)
		}
	}
	if c := banger(t, d).ok("vm", "session", "list", "--state", "exited,lost", "-q"); c.stdout != "old\n" {
		t.Errorf("by state: %q", c.stdout)
	}
	if c := banger(t, d).ok("vm", "session", "list", "--tag", "ci", "--format", "{{.Name}} {{.PID}}"); c.stdout != "build 7\n" {
		t.Errorf("by tag: %q", c.stdout)
	}
	if c := banger(t, d).ok("vm", "session", "list", "-o", "json"); !strings.Contains(c.stdout, `"vm": "web"`) {
		t.Errorf("%s", c.stdout)
	}
	if c := banger(t, d).ok("__complete", "vm", "session", "show", "web", "bu"); !strings.HasPrefix(c.stdout, "build\trunning\n") {
		t.Errorf("completion: %q", c.stdout)
	}
	if c := banger(t, d).ok("vm", "session", "show", "web", "build"); !strings.Contains(c.stdout, "Input:     pty") {
		t.Errorf("%s", c.stdout)
	}
	if c := banger(t, d).ok("vm", "session", "show", "-q", "web", "build"); c.stdout != "build\n" {
		t.Errorf("%q", c.stdout)
	}
	if c := banger(t, d).ok("vm", "session", "show", "-o", "yaml", "web", "build"); !strings.Contains(c.stdout, "state: running") {
		t.Errorf("%s", c.stdout)
	}
	if c := banger(t, d).ok("vm", "session", "show", "--format", "{{.State}}", "web", "build"); c.stdout != "running\n" {
		t.Errorf("%q", c.stdout)
	}
}

func TestSessionSend(t *testing.T) {
	d := sessions(t)
	var sent []string
	d.On(api.MethodSessionSend, func(c *fakedaemon.Call) {
		var p api.SessionSend
		c.Decode(&p)
		sent = append(sent, string(p.Data)+map[bool]string{true: " EOF"}[p.EOF])
		c.Reply(api.Empty{})
	})
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte(" from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	banger(t, d).ok("vm", "session", "send", "web", "build", "text", "--file", file, "--key", "Enter", "-k", "C-c", "-k", "M-x", "-k", "Up", "--eof")
	banger(t, d).stdin("\x00piped").ok("vm", "session", "send", "web", "build", "--file", "-")
	if diff := cmp.Diff([]string{"text from a file\r\x03\x1bx\x1b[A EOF", "\x00piped"}, sent); diff != "" {
		t.Error(diff)
	}
	banger(t, d).fails(64, `there is no key "Meta"`, "vm", "session", "send", "web", "build", "--key", "Meta")
	banger(t, d).fails(64, "nothing to send", "vm", "session", "send", "web", "build")
	banger(t, d).fails(66, "there is no file", "vm", "session", "send", "web", "build", "--file", "/no/such")
}

func TestSessionEnds(t *testing.T) {
	d := sessions(t)
	for _, method := range []string{api.MethodSessionSignal, api.MethodSessionStop, api.MethodSessionDelete} {
		d.Result(method, api.Empty{})
	}
	banger(t, d).ok("vm", "session", "signal", "web", "build", "HUP")
	var signal api.SessionSignal
	if d.Params(api.MethodSessionSignal, &signal); signal.Signal != "HUP" || signal.Session != "build" {
		t.Errorf("%+v", signal)
	}
	if c := banger(t, d).ok("vm", "session", "stop", "web", "build", "0123", "--timeout", "1m"); c.stdout != "build\n" {
		t.Errorf("two names of one session: %q", c.stdout)
	}
	var stop api.SessionStop
	if d.Params(api.MethodSessionStop, &stop); stop.GraceMS != 60_000 || stop.Session != "0123456789ab" {
		t.Errorf("%+v", stop)
	}
	banger(t, d).ok("vm", "session", "kill", "web", "build")
	stop = api.SessionStop{}
	if d.Params(api.MethodSessionStop, &stop); stop.GraceMS != 0 || stop.Session != "0123456789ab" {
		t.Errorf("%+v", stop)
	}
	banger(t, d).ok("vm", "session", "delete", "web", "build", "--force")
	var del api.SessionDelete
	if d.Params(api.MethodSessionDelete, &del); !del.Force {
		t.Errorf("%+v", del)
	}
	banger(t, d).fails(64, "too short", "vm", "session", "stop", "web", "build", "--timeout", "0s")

	ended := build()
	ended.State, ended.Exit = guestapi.SessionExited, &frame.ExitStatus{Code: 7}
	d.Result(api.MethodSessionWait, ended)
	if c := banger(t, d).run("vm", "session", "wait", "web", "build"); c.code != 7 || c.stderr != "" {
		t.Errorf("wait: %d, %q", c.code, c.stderr)
	}
	ended.State, ended.Exit = guestapi.SessionLost, nil
	d.Result(api.MethodSessionWait, ended)
	if c := banger(t, d).run("vm", "session", "wait", "web", "build"); c.code == 0 || !strings.Contains(c.stderr, "was lost") {
		t.Errorf("wait for a lost one: %d, %q", c.code, c.stderr)
	}
}

func TestSessionLogs(t *testing.T) {
	d := sessions(t)
	d.On(api.MethodSessionLogs, func(c *fakedaemon.Call) {
		c.Reply(build().Session)
		output(c, 10, frame.Stdout, "one\ntw")
		output(c, 16, frame.Stderr, "oops\n")
		output(c, 21, frame.Stdout, "o\n")
		output(c, 30, frame.Stdout, "after a gap\n")
		c.Exit(frame.ExitStatus{})
	})
	c := banger(t, d).ok("vm", "session", "logs", "web", "build", "--follow")
	if c.stdout != "one\ntwo\nafter a gap\n" || c.stderr != "banger: 10 bytes of output are missing here\noops\nbanger: 7 bytes of output are missing here\n" {
		t.Errorf("%q, %q", c.stdout, c.stderr)
	}
	var got api.SessionLogs
	if d.Params(api.MethodSessionLogs, &got); !got.Follow || got.Tail != 0 || !got.Since.IsZero() {
		t.Errorf("%+v", got)
	}
	c = banger(t, d).ok("vm", "session", "logs", "web", "build", "--timestamps", "--tail", "5", "--since", "10m", "--stream", "stdout")
	stamp := time.Unix(1700000000, 0).Format("2006-01-02T15:04:05.000Z07:00 ")
	if c.stdout != stamp+"one\n"+stamp+"two\n"+stamp+"after a gap\n" || strings.Contains(c.stderr, "missing") {
		t.Errorf("%q, %q", c.stdout, c.stderr)
	}
	got = api.SessionLogs{}
	if d.Params(api.MethodSessionLogs, &got); got.Tail != 5 || got.Stream != "stdout" || time.Since(got.Since) < 10*time.Minute || got.Follow {
		t.Errorf("%+v", got)
	}
	banger(t, d).fails(64, "bad time", "vm", "session", "logs", "web", "build", "--since", "never")
	banger(t, d).fails(64, "below zero", "vm", "session", "logs", "web", "build", "--tail", "-1")
}

// attaches scripts session.attach: the first connection, the second, and so on.
func attaches(d *fakedaemon.Daemon, each ...func(c *fakedaemon.Call, p api.SessionAttach)) {
	next := make(chan func(c *fakedaemon.Call, p api.SessionAttach), len(each))
	for _, h := range each {
		next <- h
	}
	d.On(api.MethodSessionAttach, func(c *fakedaemon.Call) {
		var p api.SessionAttach
		c.Decode(&p)
		(<-next)(c, p)
	})
}

func TestSessionAttach(t *testing.T) {
	t.Run("output comes, input goes, and the status is the session's", func(t *testing.T) {
		d := sessions(t)
		attaches(d, func(c *fakedaemon.Call, p api.SessionAttach) {
			if p.Replay != 1<<20 || !p.Take || p.Client == "" || p.ReadOnly {
				t.Errorf("%+v", p)
			}
			c.Reply(guestapi.SessionAttached{Session: build().Session, StdinWindow: 100})
			if ft, in, err := frame.NewReader(c).Next(); ft != frame.Stdin || string(in) != "typed" || err != nil {
				t.Errorf("%s %q %v", ft, in, err)
			}
			output(c, 0, frame.Stdout, "out")
			output(c, 3, frame.Stderr, "err")
			c.Exit(frame.ExitStatus{Code: 4})
		})
		c := banger(t, d).stdin("typed").run("vm", "session", "attach", "web", "build", "--take", "--replay", "1M")
		if c.code != 4 || c.stdout != "out" || c.stderr != "err" {
			t.Errorf("%d, %q, %q", c.code, c.stdout, c.stderr)
		}
	})
	t.Run("a connection that is cut is made again, where it was cut", func(t *testing.T) {
		d := sessions(t)
		var first api.SessionAttach
		attaches(d, func(c *fakedaemon.Call, p api.SessionAttach) {
			first = p
			c.Reply(guestapi.SessionAttached{Session: build().Session, From: 100})
			output(c, 100, frame.Stdout, "before ")
		}, func(c *fakedaemon.Call, p api.SessionAttach) {
			if p.From == nil || *p.From != 107 || p.Client != first.Client || !p.ReadOnly {
				t.Errorf("%+v", p)
			}
			c.Reply(guestapi.SessionAttached{Session: build().Session, From: 107})
			output(c, 107, frame.Stdout, "after")
			c.Exit(frame.ExitStatus{})
		})
		if c := banger(t, d).ok("vm", "session", "attach", "web", "build", "--read-only"); c.stdout != "before after" {
			t.Errorf("%q, %q", c.stdout, c.stderr)
		}
	})
	t.Run("one whose place was taken says so", func(t *testing.T) {
		d := sessions(t)
		attaches(d, func(c *fakedaemon.Call, _ api.SessionAttach) {
			c.Reply(guestapi.SessionAttached{Session: build().Session})
			c.Frames().Write(frame.Detached, []byte("another client came"))
		})
		banger(t, d).fails(errkind.ExitCode(errkind.New(api.KindBusy, "")), "another client came", "vm", "session", "attach", "web", "build")
	})
	t.Run("a daemon that comes back without the session ends it", func(t *testing.T) {
		d := sessions(t)
		attaches(d, func(c *fakedaemon.Call, _ api.SessionAttach) {
			c.Reply(guestapi.SessionAttached{Session: build().Session})
		},
			func(c *fakedaemon.Call, _ api.SessionAttach) { c.Fail(errkind.New(api.KindNotFound, "no session")) })
		banger(t, d).fails(66, "no session", "vm", "session", "attach", "web", "build")
	})
	t.Run("keys at a terminal leave it, and the terminal is as it was", func(t *testing.T) {
		d := sessions(t)
		var typed []byte
		gone := make(chan struct{})
		attaches(d, func(c *fakedaemon.Call, p api.SessionAttach) {
			defer close(gone)
			if p.Size == nil || p.Size.Cols != 80 {
				t.Errorf("%+v", p.Size)
			}
			c.Reply(guestapi.SessionAttached{Session: build().Session})
			output(c, 0, frame.Stdout, "ready")
			typed, _ = c.Stdin(nil)
		})
		c := banger(t, d)
		user, tty := terminal(t, c)
		before := modes(t, tty)
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.run("vm", "session", "attach", "web", "build", "--detach-keys", "ctrl-a,d")
		}()
		until(t, user, "ready")
		io.WriteString(user, "x\x01y\x01d")
		until(t, user, "which goes on")
		<-done
		<-gone
		if c.code != 0 || string(typed) != "x\x01y" || modes(t, tty) != before {
			t.Errorf("%d, typed %q", c.code, typed)
		}
	})
	banger(t, sessions(t)).fails(64, "bad detach keys", "vm", "session", "attach", "web", "build", "--detach-keys", "ctrl-?")
}
