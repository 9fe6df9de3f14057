package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
	"github.com/banger-vm/banger/internal/errkind"
)

func dial(t *testing.T, d *fakedaemon.Daemon) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), d.Socket, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func kindOf(err error) api.ErrorKind {
	var e *api.Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return ""
}

func TestDial(t *testing.T) {
	t.Run("without a socket no daemon runs", func(t *testing.T) {
		_, err := client.Dial(t.Context(), filepath.Join(t.TempDir(), "s"), client.Options{})
		if !errors.Is(err, client.ErrNotRunning) || kindOf(err) != api.KindUnavailable {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("a socket that nobody listens on is a daemon that died", func(t *testing.T) {
		d := fakedaemon.Start(t)
		stale := filepath.Join(d.Root, "stale")
		if err := os.Rename(d.Socket, stale); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.Socket, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Dial(t.Context(), d.Socket, client.Options{}); !errors.Is(err, client.ErrNotRunning) {
			t.Fatalf("got %v", err)
		}
	})
	for name, tc := range map[string]struct {
		protocol int
		hint     string
	}{
		"an older daemon is refused with a way out": {api.ProtocolVersion - 1, "that starts the present version"},
		"a newer daemon is refused with a way out":  {api.ProtocolVersion + 1, "use the banger that was installed with it"},
	} {
		t.Run(name, func(t *testing.T) {
			d := fakedaemon.Start(t)
			d.Result(api.MethodPing, api.Ping{Protocol: tc.protocol, Version: "v9", PID: 7})
			_, err := client.Dial(t.Context(), d.Socket, client.Options{})
			want := fmt.Sprintf("the daemon (version v9, pid 7) speaks protocol %d, this program %d", tc.protocol, api.ProtocolVersion)
			if kindOf(err) != api.KindPrecondition || err.Error() != want {
				t.Errorf("got %v", err)
			}
			if hint := errkind.Hint(err); !strings.Contains(hint, tc.hint) || !strings.Contains(hint, "`banger daemon stop` (VMs keep running)") {
				t.Errorf("hint %q", hint)
			}
		})
	}
	t.Run("a daemon of another version can be asked who it is, and stopped", func(t *testing.T) {
		d := fakedaemon.Start(t)
		d.Result(api.MethodPing, api.Ping{Protocol: 99, Version: "v9", PID: 7})
		d.Result(api.MethodInfo, map[string]any{"protocol": 99, "version": "v9", "a_field_of_later": true})
		d.Result(api.MethodStop, api.Empty{})
		c, err := client.Dial(t.Context(), d.Socket, client.Options{AnyProtocol: true})
		if err != nil {
			t.Fatal(err)
		}
		if i, err := c.Info(t.Context()); err != nil || i.Protocol != 99 || i.Version != "v9" || c.Daemon().PID != 7 {
			t.Errorf("got %+v, %v", i, err)
		}
		if err := c.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestCalls(t *testing.T) {
	t.Run("a failure keeps kind, hint and operation", func(t *testing.T) {
		d := fakedaemon.Start(t)
		want := &api.Error{Kind: api.KindBusy, Message: `vm "web" is starting`, Hint: "wait", Operation: "abc"}
		d.Error(api.MethodVMStop, want)
		_, err := dial(t, d).VMStop(t.Context(), api.VMStop{Ref: api.Ref{Ref: "web"}})
		var got *api.Error
		if !errors.As(err, &got) {
			t.Fatalf("got %v", err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("cancelling the context closes the connection and gives its cause", func(t *testing.T) {
		d := fakedaemon.Start(t)
		asked, hungUp := make(chan struct{}), make(chan struct{})
		d.On(api.MethodVMStart, func(c *fakedaemon.Call) { close(asked); c.HangUp(); close(hungUp) })
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("enough")
		go func() { <-asked; cancel(cause) }()
		if _, err := dial(t, d).VMStart(ctx, "web"); !errors.Is(err, cause) {
			t.Fatalf("got %v", err)
		}
		<-hungUp
	})
	t.Run("a daemon that dies in a call is unavailable", func(t *testing.T) {
		d := fakedaemon.Start(t)
		d.On(api.MethodVMStart, func(*fakedaemon.Call) {})
		_, err := dial(t, d).VMStart(t.Context(), "web")
		if kindOf(err) != api.KindUnavailable {
			t.Fatalf("got %v", err)
		}
	})
}

func TestWatch(t *testing.T) {
	d := fakedaemon.Start(t)
	d.On(api.MethodOperationWatch, func(c *fakedaemon.Call) {
		c.Reply(api.Operation{ID: "1", State: api.OperationRunning})
		c.Line(api.Operation{ID: "1", State: api.OperationRunning, Progress: &api.Progress{Done: 1}})
		c.Line(api.Operation{ID: "1", State: api.OperationSucceeded})
	})
	var seen []api.OperationState
	op, err := dial(t, d).OperationWatch(t.Context(), "1", func(op api.Operation) error { seen = append(seen, op.State); return nil })
	if err != nil || op.State != api.OperationSucceeded || op.Progress != nil {
		t.Fatalf("%v, %+v", err, op)
	}
	if diff := cmp.Diff([]api.OperationState{api.OperationRunning, api.OperationSucceeded}, seen); diff != "" {
		t.Error(diff)
	}
}

func TestExec(t *testing.T) {
	spec := func(argv ...string) api.VMExec {
		return api.VMExec{Ref: api.Ref{Ref: "web"}, ExecSpec: guestapi.ExecSpec{Argv: argv}}
	}
	t.Run("streams, signals, sizes and the exit status pass", func(t *testing.T) {
		d := fakedaemon.Start(t)
		var frames []string
		d.On(api.MethodVMExec, func(c *fakedaemon.Call) {
			c.Reply(guestapi.ExecStarted{PID: 42})
			in, whole := c.Stdin(func(ft frame.Type, p []byte) { frames = append(frames, ft.String()+" "+string(p)) })
			if !whole {
				t.Error("no stdin-eof")
			}
			c.Frames().Write(frame.Stdout, in)
			c.Frames().Write(frame.Stderr, []byte("warning"))
			c.Exit(frame.ExitStatus{Code: 143, Signal: "TERM"})
		})
		in, feed := io.Pipe()
		var out, errOut bytes.Buffer
		p, err := dial(t, d).VMExec(t.Context(), spec("cat"), client.Stdio{In: in, Out: &out, Err: &errOut})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(p.Resize(frame.WindowSize{Rows: 24, Cols: 80}), p.Signal("INT")); err != nil {
			t.Fatal(err)
		}
		io.WriteString(feed, "\x00binary\xff")
		feed.Close()
		st, err := p.Wait()
		if err != nil || st.Code != 143 || st.Signal != "TERM" || p.PID() != 42 {
			t.Fatalf("%v, %+v", err, st)
		}
		if out.String() != "\x00binary\xff" || errOut.String() != "warning" {
			t.Errorf("out %q, err %q", out.String(), errOut.String())
		}
		if diff := cmp.Diff([]string{`resize {"rows":24,"cols":80}`, "signal INT"}, frames); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("without input the command is told so", func(t *testing.T) {
		d := fakedaemon.Start(t)
		d.On(api.MethodVMExec, func(c *fakedaemon.Call) { c.Reply(guestapi.ExecStarted{}); c.Exit(frame.ExitStatus{}) })
		p, err := dial(t, d).VMExec(t.Context(), spec("true"), client.Stdio{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		var got api.VMExec
		d.Params(api.MethodVMExec, &got)
		if got.Stdin {
			t.Error("stdin was asked for")
		}
	})
	t.Run("a connection that ends without an exit frame was cut", func(t *testing.T) {
		d := fakedaemon.Start(t)
		d.On(api.MethodVMExec, func(c *fakedaemon.Call) { c.Reply(guestapi.ExecStarted{}); c.Frames().Write(frame.Stdout, []byte("x")) })
		p, err := dial(t, d).VMExec(t.Context(), spec("true"), client.Stdio{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(); kindOf(err) != api.KindUnavailable {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("input is sent as the command takes it", func(t *testing.T) {
		for taken, want := range map[int]string{0: "0123456789", 15: "0123456789abcdefghijklmno"} {
			d, got := fakedaemon.Start(t), make(chan string, 1)
			d.On(api.MethodVMExec, func(c *fakedaemon.Call) {
				c.Reply(guestapi.ExecStarted{StdinWindow: 10})
				if taken > 0 {
					c.Frames().WriteJSON(frame.StdinTaken, taken)
				}
				b, whole := c.Stdin(func(frame.Type, []byte) { c.Exit(frame.ExitStatus{}) })
				if got <- string(b); whole {
					c.Exit(frame.ExitStatus{})
				}
			})
			in, feed := io.Pipe()
			p, err := dial(t, d).VMExec(t.Context(), spec("cat"), client.Stdio{In: in})
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(feed, "0123456789")
			io.WriteString(feed, "abcdefghijklmno")
			if taken > 0 {
				feed.Close()
			} else if err := p.Signal("INT"); err != nil { // a signal needs no room
				t.Fatal(err)
			}
			if _, err := p.Wait(); err != nil {
				t.Fatal(err)
			}
			if in := <-got; in != want {
				t.Errorf("%d more were taken: sent %q, want %q", taken, in, want)
			}
		}
	})
	t.Run("much output takes no memory", func(t *testing.T) {
		const total = 256 << 20
		d := fakedaemon.Start(t)
		d.On(api.MethodVMExec, func(c *fakedaemon.Call) {
			c.Reply(guestapi.ExecStarted{})
			fw, block := c.Frames(), make([]byte, frame.MaxPayload)
			for range total / len(block) {
				if fw.Write(frame.Stdout, block) != nil {
					return
				}
			}
			c.Exit(frame.ExitStatus{})
		})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		var n counter
		p, err := dial(t, d).VMExec(t.Context(), spec("yes"), client.Stdio{Out: &n})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(); err != nil || n != total {
			t.Fatalf("%v, %d bytes", err, n)
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
			t.Errorf("%d bytes were allocated for %d bytes of output", used, total)
		}
	})
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

func TestUpload(t *testing.T) {
	p := api.VMCopyIn{Ref: api.Ref{Ref: "web"}, TarIn: guestapi.TarIn{Path: "/srv"}}
	t.Run("what is written arrives, and the exit frame ends it", func(t *testing.T) {
		d := fakedaemon.Start(t)
		var got []byte
		d.On(api.MethodVMCopyIn, func(c *fakedaemon.Call) { c.Reply(nil); got, _ = c.Stdin(nil); c.Exit(frame.ExitStatus{}) })
		err := dial(t, d).VMCopyIn(t.Context(), p, func(w io.Writer) error { _, err := w.Write(make([]byte, 200_000)); return err })
		if err != nil || len(got) != 200_000 {
			t.Fatalf("%v, %d bytes", err, len(got))
		}
	})
	t.Run("a guest that gives up stops the writer, and its reason wins", func(t *testing.T) {
		d := fakedaemon.Start(t)
		d.On(api.MethodVMCopyIn, func(c *fakedaemon.Call) {
			c.Reply(nil)
			c.Exit(frame.ExitStatus{Code: 1, Error: "no space left on device"})
		})
		err := dial(t, d).VMCopyIn(t.Context(), p, func(w io.Writer) error {
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return err
				}
			}
		})
		if kindOf(err) != api.KindGuest || !strings.Contains(err.Error(), "no space left") {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("a failure to read on the host cuts the copy off", func(t *testing.T) {
		d := fakedaemon.Start(t)
		cut := make(chan bool, 1)
		d.On(api.MethodVMCopyIn, func(c *fakedaemon.Call) { c.Reply(nil); _, whole := c.Stdin(nil); cut <- !whole })
		broken := errors.New("input/output error")
		err := dial(t, d).VMCopyIn(t.Context(), p, func(w io.Writer) error { w.Write([]byte("half")); return broken })
		if !errors.Is(err, broken) || !<-cut {
			t.Fatalf("got %v", err)
		}
	})
}

func TestDownload(t *testing.T) {
	p := api.VMCopyOut{Ref: api.Ref{Ref: "web"}, TarOut: guestapi.TarOut{Path: "/etc"}}
	read := func(t *testing.T, d *fakedaemon.Daemon) (string, error) {
		r, err := dial(t, d).VMCopyOut(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		return string(b), err
	}
	t.Run("a whole copy ends cleanly", func(t *testing.T) {
		d := fakedaemon.Start(t)
		d.On(api.MethodVMCopyOut, func(c *fakedaemon.Call) {
			c.Reply(nil)
			c.Frames().Write(frame.Stdout, []byte("tar"))
			c.Exit(frame.ExitStatus{})
		})
		if got, err := read(t, d); err != nil || got != "tar" {
			t.Fatalf("%v, %q", err, got)
		}
	})
	t.Run("half a copy is an error", func(t *testing.T) {
		d := fakedaemon.Start(t)
		d.On(api.MethodVMCopyOut, func(c *fakedaemon.Call) { c.Reply(nil); c.Frames().Write(frame.Stdout, []byte("ta")) })
		if _, err := read(t, d); kindOf(err) != api.KindUnavailable {
			t.Fatalf("got %v", err)
		}
	})
}
