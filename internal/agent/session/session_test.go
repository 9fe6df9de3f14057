package session

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/agent/proc"
	"github.com/banger-vm/banger/internal/agent/run"
	"github.com/banger-vm/banger/internal/errkind"
)

// agent is a manager with what calls it.
type agent struct {
	*Manager
	t *testing.T
}

func newAgent(t *testing.T, dir string) agent {
	return agent{New(Config{Dir: dir, Run: run.New(proc.New(), func() []string { return nil }), Log: slog.New(slog.DiscardHandler)}), t}
}

// open calls method and returns its connection.
func (a agent) open(method string, params, result any) (net.Conn, *bufio.Reader, error) {
	a.t.Helper()
	host, guest := net.Pipe()
	a.t.Cleanup(func() { host.Close() })
	go call.Serve(a.t.Context(), guest, a.Handlers())
	r := bufio.NewReader(host)
	return host, r, api.StartCall(host, r, method, params, result)
}

func (a agent) call(method string, params, result any) error {
	a.t.Helper()
	conn, _, err := a.open(method, params, result)
	conn.Close()
	return err
}

func ref(name string) guestapi.SessionRef { return guestapi.SessionRef{Session: name} }

// start starts a session of a shell script.
func (a agent) start(name, script string, change ...func(*guestapi.SessionSpec)) guestapi.Session {
	a.t.Helper()
	spec := guestapi.SessionSpec{Name: name, ExecSpec: guestapi.ExecSpec{Argv: []string{"sh", "-c", script}, Cwd: "/"}}
	for _, c := range change {
		c(&spec)
	}
	var s guestapi.Session
	if err := a.call(guestapi.MethodSessionStart, spec, &s); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		a.call(guestapi.MethodSessionDelete, guestapi.SessionDelete{SessionRef: ref(s.ID), Force: true}, nil)
	})
	return s
}

func (a agent) wait(name string) guestapi.Session {
	a.t.Helper()
	var s guestapi.Session
	if err := a.call(guestapi.MethodSessionWait, ref(name), &s); err != nil {
		a.t.Fatal(err)
	}
	return s
}

func withInput(s *guestapi.SessionSpec)    { s.Stdin = true }
func withTerminal(s *guestapi.SessionSpec) { s.TTY = true }

// attached is an attached client.
type attached struct {
	net.Conn
	guestapi.SessionAttached
	t *testing.T
	r *frame.Reader
	w *frame.Writer
}

func (a agent) attach(p guestapi.SessionAttach) attached {
	a.t.Helper()
	var answer guestapi.SessionAttached
	conn, r, err := a.open(guestapi.MethodSessionAttach, p, &answer)
	if err != nil {
		a.t.Fatal(err)
	}
	return attached{conn, answer, a.t, frame.NewReader(r), frame.NewWriter(conn)}
}

func (c attached) write(text string) {
	c.t.Helper()
	if err := c.w.Write(frame.Stdin, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// until reads output until it contains text, and returns it.
func (c attached) until(text string) string {
	c.t.Helper()
	var out strings.Builder
	for !strings.Contains(out.String(), text) {
		t, payload, err := c.r.Next()
		if err != nil || t != frame.Output && t != frame.StdinTaken {
			c.t.Fatalf("%s %q, %v, after %q", t, payload, err, out.String())
		}
		if t == frame.Output {
			rec, err := frame.ParseRecord(payload)
			if err != nil {
				c.t.Fatal(err)
			}
			out.Write(rec.Data)
		}
	}
	return out.String()
}

// end reads to the last frame.
func (c attached) end() (out string, last frame.Type, payload []byte) {
	c.t.Helper()
	for {
		t, payload, err := c.r.Next()
		switch {
		case err != nil:
			c.t.Fatalf("after %q: %v", out, err)
		case t == frame.Output:
			rec, err := frame.ParseRecord(payload)
			if err != nil {
				c.t.Fatal(err)
			}
			out += string(rec.Data)
		case t != frame.StdinTaken:
			return out, t, payload
		}
	}
}

func (c attached) exit() (string, frame.ExitStatus) {
	c.t.Helper()
	out, last, payload := c.end()
	var st frame.ExitStatus
	if err := json.Unmarshal(payload, &st); err != nil || last != frame.Exit {
		c.t.Fatalf("%s %q: %v", last, payload, err)
	}
	return out, st
}

func TestLife(t *testing.T) {
	t.Run("a session ends with its command's status, and its output stays", func(t *testing.T) {
		a := newAgent(t, t.TempDir())
		a.start("build", "echo out; echo err >&2; exit 7")
		s := a.wait("build")
		if s.State != guestapi.SessionExited || s.Exit.Code != 7 || s.LogEnd != 8 || s.PID != 0 {
			t.Fatalf("%+v", s)
		}
		out, st := a.attach(guestapi.SessionAttach{SessionRef: ref("build"), Replay: 1000}).exit()
		if (out != "out\nerr\n" && out != "err\nout\n") || st.Code != 7 {
			t.Errorf("%q, %+v", out, st)
		}
	})
	t.Run("a command that is missing ends with 127 and leaves nothing", func(t *testing.T) {
		a := newAgent(t, t.TempDir())
		var s guestapi.Session
		err := a.call(guestapi.MethodSessionStart, guestapi.SessionSpec{Name: "x", ExecSpec: guestapi.ExecSpec{Argv: []string{"no-such-program"}, Cwd: "/"}}, &s)
		if err != nil || s.Exit == nil || s.Exit.Code != 127 || !strings.Contains(s.Exit.Error, "not found") {
			t.Fatalf("%+v, %v", s, err)
		}
		var all guestapi.SessionList
		if err := a.call(guestapi.MethodSessionList, nil, &all); err != nil || len(all.Sessions) != 0 {
			t.Errorf("%+v, %v", all, err)
		}
		if left, _ := os.ReadDir(a.cfg.Dir); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
	t.Run("a stop gives a grace, then kills", func(t *testing.T) {
		a := newAgent(t, t.TempDir())
		a.start("stubborn", "trap 'echo no' TERM; echo ready; while :; do sleep 0.01; done")
		a.attach(guestapi.SessionAttach{SessionRef: ref("stubborn"), Replay: 100, ReadOnly: true}).until("ready")
		var s guestapi.Session
		if err := a.call(guestapi.MethodSessionStop, guestapi.SessionStop{SessionRef: ref("stubborn"), GraceMS: 50}, &s); err != nil {
			t.Fatal(err)
		}
		if s.State != guestapi.SessionExited || s.Exit.Signal != "KILL" {
			t.Errorf("%+v", s)
		}
	})
	t.Run("a signal reaches the command", func(t *testing.T) {
		a := newAgent(t, t.TempDir())
		a.start("s", "trap 'exit 5' USR1; echo ready; while :; do sleep 0.01; done")
		a.attach(guestapi.SessionAttach{SessionRef: ref("s"), Replay: 100, ReadOnly: true}).until("ready")
		if err := a.call(guestapi.MethodSessionSignal, guestapi.SessionSignal{SessionRef: ref("s"), Signal: "SIGUSR1"}, nil); err != nil {
			t.Fatal(err)
		}
		if s := a.wait("s"); s.Exit.Code != 5 {
			t.Errorf("%+v", s.Exit)
		}
	})
	t.Run("one that fails is started again until it succeeds", func(t *testing.T) {
		a, dir := newAgent(t, t.TempDir()), t.TempDir()
		a.start("flaky", "test -e "+dir+"/tried || { touch "+dir+"/tried; exit 1; }; echo done",
			func(s *guestapi.SessionSpec) { s.RestartOnFailure = true })
		if s := a.wait("flaky"); s.Exit.Code != 0 || s.Restarts != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("one that takes too long ends with 124", func(t *testing.T) {
		a := newAgent(t, t.TempDir())
		a.start("slow", "sleep 1000", func(s *guestapi.SessionSpec) { s.TimeoutMS = 20 })
		if s := a.wait("slow"); s.Exit.Code != 124 {
			t.Errorf("%+v", s.Exit)
		}
	})
	t.Run("one that the guest's power-off ends is lost, and not started again", func(t *testing.T) {
		a := newAgent(t, t.TempDir())
		a.start("s", "exec sleep 1000", func(s *guestapi.SessionSpec) { s.RestartOnFailure = true })
		a.PowerOff()
		if err := a.call(guestapi.MethodSessionSignal, guestapi.SessionSignal{SessionRef: ref("s"), Signal: "TERM"}, nil); err != nil {
			t.Fatal(err)
		}
		if s := a.wait("s"); s.State != guestapi.SessionLost || s.Restarts != 0 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("one that an agent before this one left running is lost, with its log", func(t *testing.T) {
		dir := t.TempDir()
		a := newAgent(t, dir)
		s := a.start("old", "echo kept; exec sleep 1000")
		a.attach(guestapi.SessionAttach{SessionRef: ref("old"), Replay: 100, ReadOnly: true}).until("kept")
		b := newAgent(t, dir)
		if s = b.wait("old"); s.State != guestapi.SessionLost {
			t.Fatalf("%+v", s)
		}
		out, st := b.attach(guestapi.SessionAttach{SessionRef: ref("old"), Replay: 100}).exit()
		if out != "kept\n" || st.Code == 0 || !strings.Contains(st.Error, "lost") {
			t.Errorf("%q, %+v", out, st)
		}
	})
}

func TestRefusals(t *testing.T) {
	a := newAgent(t, t.TempDir())
	a.start("taken", "exec sleep 1000")
	spec := func(change func(*guestapi.SessionSpec)) guestapi.SessionSpec {
		s := guestapi.SessionSpec{Name: "new", ExecSpec: guestapi.ExecSpec{Argv: []string{"true"}, Cwd: "/"}}
		change(&s)
		return s
	}
	for what, c := range map[string]struct {
		method string
		params any
		kind   errkind.Kind
		text   string
	}{
		"a name in use": {guestapi.MethodSessionStart, spec(func(s *guestapi.SessionSpec) { s.Name = "taken" }), api.KindExists, "is taken"},
		"a bad name":    {guestapi.MethodSessionStart, spec(func(s *guestapi.SessionSpec) { s.Name = "A b" }), api.KindInvalid, "bad session name"},
		"a user that is not there": {guestapi.MethodSessionStart, spec(func(s *guestapi.SessionSpec) { s.User = "nobody-such" }),
			api.KindNotFound, "no user"},
		"a directory that is not there": {guestapi.MethodSessionStart, spec(func(s *guestapi.SessionSpec) { s.Cwd = "/no/such" }),
			api.KindNotFound, "does not exist"},
		"required commands that are missing, all of them": {guestapi.MethodSessionStart,
			spec(func(s *guestapi.SessionSpec) { s.Require = []string{"no-one", "sh", "no-two"} }), api.KindPrecondition, `run "no-two"`},
		"a zero byte in the environment": {guestapi.MethodSessionStart,
			spec(func(s *guestapi.SessionSpec) { s.Env = []string{"A=b\x00c"} }), api.KindInvalid, "environment variable"},
		"a session that is not there": {guestapi.MethodSessionGet, ref("none"), api.KindNotFound, "no session"},
		"a signal without a meaning": {guestapi.MethodSessionSignal, guestapi.SessionSignal{SessionRef: ref("taken"), Signal: "NOPE"},
			api.KindInvalid, "no signal"},
		"input for a session without any": {guestapi.MethodSessionSend, guestapi.SessionSend{SessionRef: ref("taken"), Data: []byte("x")},
			api.KindPrecondition, "no input"},
		"the deletion of one that runs": {guestapi.MethodSessionDelete, guestapi.SessionDelete{SessionRef: ref("taken")},
			api.KindPrecondition, "has not ended"},
		"a stream that is none": {guestapi.MethodSessionLogs, guestapi.SessionLogs{SessionRef: ref("taken"), Stream: "stdin"},
			api.KindInvalid, "unknown stream"},
	} {
		t.Run(what, func(t *testing.T) {
			err := a.call(c.method, c.params, nil)
			if !errkind.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v, of kind %s", err, errkind.Of(err))
			}
		})
	}
	t.Run("arguments of more than the kernel takes end with 126", func(t *testing.T) {
		var s guestapi.Session
		err := a.call(guestapi.MethodSessionStart, spec(func(s *guestapi.SessionSpec) { s.Argv = []string{"true", strings.Repeat("x", 1<<20)} }), &s)
		if err != nil || s.Exit == nil || s.Exit.Code != 126 || !strings.Contains(s.Exit.Error, "too long") {
			t.Errorf("%+v, %v", s.Exit, err)
		}
	})
}

func TestInput(t *testing.T) {
	t.Run("what is sent reaches the command, to the end", func(t *testing.T) {
		a := newAgent(t, t.TempDir())
		a.start("cat", "exec cat", withInput)
		for _, p := range []guestapi.SessionSend{{Data: []byte("one ")}, {Data: []byte("two\n"), EOF: true}} {
			p.SessionRef = ref("cat")
			if err := a.call(guestapi.MethodSessionSend, p, nil); err != nil {
				t.Fatal(err)
			}
		}
		if s := a.wait("cat"); s.Exit.Code != 0 {
			t.Errorf("%+v", s.Exit)
		}
		if out, _ := a.attach(guestapi.SessionAttach{SessionRef: ref("cat"), Replay: 100}).exit(); out != "one two\n" {
			t.Errorf("%q", out)
		}
		if err := a.call(guestapi.MethodSessionSend, guestapi.SessionSend{SessionRef: ref("cat"), Data: []byte("x")}, nil); !errkind.Is(err, api.KindPrecondition) {
			t.Errorf("input after the end: %v", err)
		}
	})
	t.Run("one writes; another may watch, or take its place", func(t *testing.T) {
		a := newAgent(t, t.TempDir())
		a.start("cat", "exec cat", withInput)
		first := a.attach(guestapi.SessionAttach{SessionRef: ref("cat")})
		if err := a.call(guestapi.MethodSessionAttach, guestapi.SessionAttach{SessionRef: ref("cat")}, nil); !errkind.Is(err, api.KindBusy) {
			t.Fatalf("a second that writes: %v", err)
		}
		watcher := a.attach(guestapi.SessionAttach{SessionRef: ref("cat"), ReadOnly: true})
		watcher.write("not heard\n")
		first.write("heard\n")
		if out := watcher.until("heard\n"); out != "heard\n" {
			t.Errorf("the watcher saw %q", out)
		}
		second := a.attach(guestapi.SessionAttach{SessionRef: ref("cat"), Take: true})
		if _, last, why := first.end(); last != frame.Detached || !strings.Contains(string(why), "taken") {
			t.Errorf("the first ended with %s %q", last, why)
		}
		second.write("mine\n")
		second.until("mine\n")
	})
	t.Run("a client that comes back takes its own place, and misses nothing", func(t *testing.T) {
		a := newAgent(t, t.TempDir())
		a.start("cat", "exec cat", withInput)
		first := a.attach(guestapi.SessionAttach{SessionRef: ref("cat"), Client: "me"})
		first.write("one\n")
		first.until("one\n")
		from := int64(2)
		again := a.attach(guestapi.SessionAttach{SessionRef: ref("cat"), Client: "me", From: &from})
		again.write("two\n")
		if out := again.until("two\n"); out != "e\ntwo\n" {
			t.Errorf("%q", out)
		}
	})
	t.Run("on a terminal the smallest of those attached decides, and keys are signals", func(t *testing.T) {
		a := newAgent(t, t.TempDir())
		a.start("tty", "trap 'echo int; exit 3' INT; echo ready; while read l; do stty size; done", withTerminal)
		one := a.attach(guestapi.SessionAttach{SessionRef: ref("tty"), Replay: 100, Size: &frame.WindowSize{Rows: 50, Cols: 80}})
		one.until("ready")
		two := a.attach(guestapi.SessionAttach{SessionRef: ref("tty"), ReadOnly: true, Size: &frame.WindowSize{Rows: 24, Cols: 132}})
		one.write("\n")
		one.until("24 80")
		two.Close()
		for {
			var s guestapi.Session
			if a.call(guestapi.MethodSessionGet, ref("tty"), &s); s.Attached == 1 {
				break
			}
		}
		one.write("\n")
		one.until("50 80")
		one.write("\x03")
		if _, st := one.exit(); st.Code != 3 {
			t.Errorf("%+v", st)
		}
	})
	t.Run("a command that does not read its input keeps nobody's signal", func(t *testing.T) {
		a := newAgent(t, t.TempDir())
		a.start("deaf", "exec sleep 1000", withInput)
		c := a.attach(guestapi.SessionAttach{SessionRef: ref("deaf")})
		for left := c.StdinWindow; left > 0; left -= frame.MaxPayload {
			c.write(strings.Repeat("x", min(left, frame.MaxPayload)))
		}
		if err := c.w.Write(frame.Signal, []byte("TERM")); err != nil {
			t.Fatal(err)
		}
		if _, st := c.exit(); st.Signal != "TERM" {
			t.Errorf("%+v", st)
		}
	})
}

func TestReaders(t *testing.T) {
	const total = 8 << 20
	a := newAgent(t, t.TempDir())
	a.start("flood", fmt.Sprintf("read x; yes 0123456789abcde | head -c %d", total), withInput)
	stopped := a.attach(guestapi.SessionAttach{SessionRef: ref("flood"), ReadOnly: true}) // and reads nothing
	defer stopped.Close()
	var got [2]chan string
	for i := range got {
		got[i] = make(chan string, 1)
		c := a.attach(guestapi.SessionAttach{SessionRef: ref("flood"), ReadOnly: true})
		go func() { out, _ := c.exit(); got[i] <- out }()
	}
	if err := a.call(guestapi.MethodSessionSend, guestapi.SessionSend{SessionRef: ref("flood"), Data: []byte("go\n")}, nil); err != nil {
		t.Fatal(err)
	}
	if s := a.wait("flood"); s.LogEnd != total || s.LogLost != 0 {
		t.Errorf("%+v", s)
	}
	want := strings.Repeat("0123456789abcde\n", total/16)
	for i := range got {
		if out := <-got[i]; out != want {
			t.Errorf("reader %d got %d bytes, and not what was written", i, len(out))
		}
	}
}

func TestLogs(t *testing.T) {
	a := newAgent(t, t.TempDir())
	a.start("s", "echo one; echo oops >&2; sleep 0.1; echo two; printf three")
	s := a.wait("s")
	logs := func(p guestapi.SessionLogs) string {
		t.Helper()
		p.SessionRef = ref("s")
		conn, r, err := a.open(guestapi.MethodSessionLogs, p, nil)
		if err != nil {
			t.Fatal(err)
		}
		out, _, _ := attached{Conn: conn, t: t, r: frame.NewReader(r)}.end()
		return out
	}
	for what, c := range map[string]struct {
		p    guestapi.SessionLogs
		want string
	}{
		"one stream":                     {guestapi.SessionLogs{Stream: "stdout"}, "one\ntwo\nthree"},
		"the last lines":                 {guestapi.SessionLogs{Tail: 2}, "two\nthree"},
		"the last lines of one stream":   {guestapi.SessionLogs{Tail: 1, Stream: "stderr"}, "oops\n"},
		"more lines than there are":      {guestapi.SessionLogs{Tail: 100, Stream: "stdout"}, "one\ntwo\nthree"},
		"from an offset on":              {guestapi.SessionLogs{From: s.LogEnd - 3}, "ree"},
		"since a moment that is to come": {guestapi.SessionLogs{Since: s.Ended.Add(time.Hour)}, ""},
		"following one that has ended":   {guestapi.SessionLogs{Follow: true, Tail: 1}, "three"},
	} {
		t.Run(what, func(t *testing.T) {
			if got := logs(c.p); got != c.want {
				t.Errorf("%q, not %q", got, c.want)
			}
		})
	}
}

func TestCgroup(t *testing.T) {
	root := "/sys/fs/cgroup/unified"
	if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
		root = "/sys/fs/cgroup"
	}
	group := filepath.Join(root, fmt.Sprintf("banger-test-%d", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skipf("no cgroup v2 to write to: %v", err)
	}
	defer os.Remove(group)
	if g := newCgroup(group, "probe"); g == "" {
		t.Skip("cgroup v2 is not at " + root)
	} else {
		g.remove()
	}
	a := newAgent(t, t.TempDir())
	a.cfg.Cgroup = group
	pidFile := filepath.Join(t.TempDir(), "pid")
	s := a.start("tree", "setsid sh -c 'echo $$ >"+pidFile+".new; mv "+pidFile+".new "+pidFile+"; exec sleep 1000' & while ! test -e "+pidFile+"; do sleep 0.01; done; echo ready; wait")
	a.attach(guestapi.SessionAttach{SessionRef: ref("tree"), Replay: 100, ReadOnly: true}).until("ready")
	if err := a.call(guestapi.MethodSessionDelete, guestapi.SessionDelete{SessionRef: ref(s.ID), Force: true}, nil); err != nil {
		t.Fatal(err)
	}
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
	if err == nil && !strings.Contains(string(status), ") Z ") {
		t.Errorf("a process in a session of its own is left: %s", status)
	}
	if left, _ := filepath.Glob(group + "/*/cgroup.procs"); len(left) != 0 {
		t.Errorf("cgroups are left: %v", left)
	}
}
