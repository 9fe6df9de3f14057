package run

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/agent/proc"
)

// command is a running command, seen from its client.
type command struct {
	net.Conn
	w       *frame.Writer
	r       *frame.Reader
	started guestapi.ExecStarted
}

func execute(t *testing.T, spec guestapi.ExecSpec) *command {
	t.Helper()
	host, guest := net.Pipe()
	t.Cleanup(func() { host.Close() })
	go call.Serve(t.Context(), guest, New(proc.New(), func() []string { return []string{"GREETING=hello"} }).Handlers())
	r := bufio.NewReader(host)
	c := &command{Conn: host, w: frame.NewWriter(host), r: frame.NewReader(r)}
	if err := api.StartCall(host, r, guestapi.MethodExec, spec, &c.started); err != nil {
		t.Fatal(err)
	}
	return c
}

// shell executes a script that reads standard input.
func shell(t *testing.T, script string) *command {
	t.Helper()
	return execute(t, guestapi.ExecSpec{Argv: []string{"sh", "-c", script}, Stdin: true, Cwd: "/"})
}

// next returns the command's next frame.
func (c *command) next(t *testing.T) (frame.Type, []byte) {
	t.Helper()
	kind, payload, err := c.r.Next()
	if err != nil {
		t.Fatal(err)
	}
	return kind, payload
}

// wait reads to the exit frame, and calls each for the frames before.
func (c *command) wait(t *testing.T, each func(frame.Type, []byte)) frame.ExitStatus {
	t.Helper()
	for {
		kind, payload := c.next(t)
		if kind == frame.Exit {
			var st frame.ExitStatus
			if err := json.Unmarshal(payload, &st); err != nil {
				t.Fatal(err)
			}
			return st
		}
		each(kind, payload)
	}
}

// fill sends as much input as the agent allows.
func (c *command) fill(t *testing.T) {
	t.Helper()
	if err := c.w.Write(frame.Stdin, make([]byte, c.started.StdinWindow)); err != nil {
		t.Fatal(err)
	}
}

func TestExec(t *testing.T) {
	t.Run("both outputs, the environment and the status are the command's", func(t *testing.T) {
		var out, errs bytes.Buffer
		c := shell(t, `printf '%s\000\377' $GREETING; echo oops >&2; exit 7`)
		st := c.wait(t, func(kind frame.Type, p []byte) {
			map[frame.Type]*bytes.Buffer{frame.Stdout: &out, frame.Stderr: &errs}[kind].Write(p)
		})
		if st.Code != 7 || out.String() != "hello\x00\xff" || errs.String() != "oops\n" {
			t.Errorf("%+v, output %q and %q", st, out.String(), errs.String())
		}
	})
	t.Run("a command that is missing is accepted and ends with 127", func(t *testing.T) {
		c := execute(t, guestapi.ExecSpec{Argv: []string{"no-such-program"}})
		if st := c.wait(t, func(frame.Type, []byte) {}); st.Code != 127 || c.started.PID != 0 || !strings.Contains(st.Error, "not found") {
			t.Errorf("%+v", st)
		}
	})
	t.Run("all of 256 MiB arrives", func(t *testing.T) {
		const total = 256 << 20
		got, whole := 0, true
		c := shell(t, "yes 0123456789abcde | head -c 268435456")
		c.wait(t, func(kind frame.Type, p []byte) {
			for i := 0; i < len(p); i += 4093 { // a cheap look at the pattern
				whole = whole && p[i] == "0123456789abcde\n"[(got+i)%16]
			}
			got += len(p)
		})
		if got != total || !whole {
			t.Errorf("%d bytes of %d, the pattern is whole: %v", got, total, whole)
		}
	})
}

func TestInput(t *testing.T) {
	t.Run("a client that keeps to what was taken can send any amount", func(t *testing.T) {
		const total = 64 << 20
		c := shell(t, "wc -c")
		room, sent := make(chan int, total/(window/4)), make(chan error, 1)
		go func() {
			left := c.started.StdinWindow
			for todo := total; todo > 0; {
				if left == 0 {
					left = <-room
				}
				n := min(left, todo)
				if err := c.w.Write(frame.Stdin, make([]byte, n)); err != nil {
					sent <- err
					return
				}
				left, todo = left-n, todo-n
			}
			sent <- c.w.Write(frame.StdinEOF, nil)
		}()
		var out []byte
		st := c.wait(t, func(kind frame.Type, p []byte) {
			var n int
			if kind == frame.StdinTaken && json.Unmarshal(p, &n) == nil {
				room <- n
				return
			}
			out = append(out, p...)
		})
		if err := <-sent; err != nil || st.Code != 0 || strings.TrimSpace(string(out)) != "67108864" {
			t.Errorf("%v, %+v, output %q", err, st, out)
		}
	})
	t.Run("an end of input at once is one", func(t *testing.T) {
		c := shell(t, "cat; exit 3")
		if err := c.w.Write(frame.StdinEOF, nil); err != nil {
			t.Fatal(err)
		}
		if st := c.wait(t, func(frame.Type, []byte) { t.Error("output") }); st.Code != 3 {
			t.Errorf("%+v", st)
		}
	})
	t.Run("a command may end while its input is under way", func(t *testing.T) {
		c := shell(t, "read x; exit 4")
		go func() { // more than the window: the client does not keep to it
			for c.w.Write(frame.Stdin, []byte(strings.Repeat("line\n", 10000))) == nil {
			}
		}()
		if st := c.wait(t, func(frame.Type, []byte) {}); st.Code != 4 {
			t.Errorf("%+v", st)
		}
	})
	t.Run("a signal gets past input that nobody reads", func(t *testing.T) {
		c := shell(t, "exec sleep 1000")
		c.fill(t)
		if err := c.w.Write(frame.Signal, []byte("TERM")); err != nil {
			t.Fatal(err)
		}
		if st := c.wait(t, func(frame.Type, []byte) {}); st.Signal != "TERM" {
			t.Errorf("%+v", st)
		}
	})
}

func TestClientGone(t *testing.T) {
	for what, child := range map[string]string{
		"input that nobody reads":  "sleep 1000",
		"output that nobody reads": "yes",
	} {
		t.Run("the command gets SIGHUP, with "+what+" under way", func(t *testing.T) {
			fifo := filepath.Join(t.TempDir(), "fifo")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			// Of one that writes, the pipe may end before the signal comes.
			c := shell(t, "exec 3>"+fifo+"; trap 'echo hung up >&3; exit' HUP; echo ready >&3; "+child+" 3>&- & wait; sleep 1000 3>&- & wait")
			f, err := os.Open(fifo)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := io.ReadFull(f, make([]byte, len("ready\n"))); err != nil {
				t.Fatal(err)
			}
			c.fill(t)
			c.Close()
			if rest, err := io.ReadAll(f); err != nil || string(rest) != "hung up\n" {
				t.Errorf("%q, %v", rest, err)
			}
		})
	}
}

func TestTimeout(t *testing.T) {
	for what, script := range map[string]string{
		"a command that takes too long is ended, and its status says so": "sleep 1000",
		"one that ignores the signal is killed":                          "trap '' TERM; while :; do sleep 0.1; done",
	} {
		t.Run(what, func(t *testing.T) {
			c := execute(t, guestapi.ExecSpec{Argv: []string{"sh", "-c", script}, Cwd: "/", TimeoutMS: 50})
			if st := c.wait(t, nil); st.Code != 124 || !strings.Contains(st.Error, "within 50 ms") {
				t.Errorf("status %+v", st)
			}
		})
	}
	t.Run("one that ends in time has its own status", func(t *testing.T) {
		c := execute(t, guestapi.ExecSpec{Argv: []string{"sh", "-c", "exit 3"}, Cwd: "/", TimeoutMS: 60_000})
		if st := c.wait(t, nil); st.Code != 3 || st.Error != "" {
			t.Errorf("status %+v", st)
		}
	})
}
