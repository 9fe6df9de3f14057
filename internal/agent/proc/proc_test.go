package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/internal/errkind"
)

// reaperEnv makes the test binary play PID 1: it adopts the orphans below it, as prctl(PR_SET_CHILD_SUBREAPER) allows
// without privilege, and reaps with wait4(-1).
const reaperEnv = "BANGER_TEST_REAPER"

func TestMain(m *testing.M) {
	if os.Getenv(reaperEnv) == "" {
		os.Exit(m.Run())
	}
	if err := playReaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func playReaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sup := newSupervisor(true)
	go sup.Run(ctx)

	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for i := range 100 { // very short children, and every fourth leaves an orphan that ends by itself
		wg.Go(func() {
			script := fmt.Sprintf("exit %d", i)
			if i%4 == 0 {
				script = fmt.Sprintf("(true; exit 99) & exit %d", i)
			}
			p, err := sup.Start(ctx, Spec{Argv: []string{"sh", "-c", script}})
			if err == nil {
				if st := p.Wait(); st.Code != i {
					err = fmt.Errorf("child %d has status %+v", i, st)
				}
			}
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	for { // the last orphans; ECHILD says that none is left, and a status here would be one that the reaper missed
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.ECHILD) {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func TestReaper(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), reaperEnv+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("as reaper of everything: %v\n%s", err, out)
	}
}

func start(t *testing.T, spec Spec) *Process {
	t.Helper()
	p, err := New().Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func sh(script string) Spec {
	return Spec{Argv: []string{"sh", "-c", script}, Env: os.Environ()}
}

func TestStatus(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		want   frame.ExitStatus
	}{
		"success":              {"exit 0", frame.ExitStatus{}},
		"a failure":            {"exit 42", frame.ExitStatus{Code: 42}},
		"ended by TERM":        {"kill -TERM $$", frame.ExitStatus{Code: 143, Signal: "TERM"}},
		"ended by KILL":        {"kill -KILL $$", frame.ExitStatus{Code: 137, Signal: "KILL"}},
		"status of a pipeline": {"true | exit 7", frame.ExitStatus{Code: 7}},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, sh(c.script))
			for range 2 { // Wait may be repeated
				if got := p.Wait(); got != c.want {
					t.Errorf("got %+v, want %+v", got, c.want)
				}
			}
			if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("signal after the end: %v", err)
			}
		})
	}
}

func TestCommandsThatCannotRun(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := dir + "/" + name
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, c := range map[string]struct {
		spec Spec
		code int
		kind api.ErrorKind
	}{
		"missing in PATH":         {Spec{Argv: []string{"no-such-program"}}, 127, api.KindNotFound},
		"missing by path":         {Spec{Argv: []string{dir + "/missing"}}, 127, api.KindNotFound},
		"below a file":            {Spec{Argv: []string{write("file", "", 0o600) + "/x"}}, 127, api.KindNotFound},
		"not in the given PATH":   {Spec{Argv: []string{"sh"}, Env: []string{"PATH=" + dir}}, 127, api.KindNotFound},
		"not executable":          {Spec{Argv: []string{write("plain", "x", 0o600)}}, 126, api.KindPermission},
		"not executable in PATH":  {Spec{Argv: []string{"plain"}, Env: []string{"PATH=" + dir}}, 126, api.KindPermission},
		"a directory":             {Spec{Argv: []string{dir}}, 126, api.KindPermission},
		"of no known format":      {Spec{Argv: []string{write("junk", "junk", 0o700)}}, 126, api.KindInvalid},
		"without its interpreter": {Spec{Argv: []string{write("script", "#!/no/such\n", 0o700)}}, 126, api.KindInvalid},
		"with a zero byte":        {Spec{Argv: []string{"true", "a\x00b"}}, 126, api.KindInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New().Start(t.Context(), c.spec)
			var exec *ExecError
			if !errors.As(err, &exec) || !errkind.Is(err, c.kind) {
				t.Fatalf("got %v (%s), want an ExecError of kind %s", err, errkind.Of(err), c.kind)
			}
			if st := Status(err); st.Code != c.code || st.Error == "" {
				t.Errorf("status %+v, want code %d", st, c.code)
			}
		})
	}
	t.Run("a missing directory is no ExecError", func(t *testing.T) {
		_, err := New().Start(t.Context(), Spec{Argv: []string{"true"}, Dir: dir + "/missing"})
		var exec *ExecError
		if !errkind.Is(err, api.KindNotFound) || errors.As(err, &exec) || errkind.Hint(err) == "" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no command is invalid", func(t *testing.T) {
		if _, err := New().Start(t.Context(), Spec{}); !errkind.Is(err, api.KindInvalid) {
			t.Errorf("got %v", err)
		}
	})
}

func TestStdio(t *testing.T) {
	t.Run("output of both streams is there when Wait returns", func(t *testing.T) {
		var out, errOut bytes.Buffer
		spec := sh("head -c 300000 /dev/zero; echo oops >&2; exit 3")
		spec.Stdout, spec.Stderr = &out, &errOut
		if st := start(t, spec).Wait(); st.Code != 3 || out.Len() != 300000 || errOut.String() != "oops\n" {
			t.Errorf("status %+v, %d bytes, stderr %q", st, out.Len(), errOut.String())
		}
	})
	t.Run("without readers and writers all is /dev/null", func(t *testing.T) {
		if st := start(t, sh("cat; echo x; test -c /proc/self/fd/0 -a -c /proc/self/fd/1")).Wait(); st.Code != 0 {
			t.Errorf("status %+v", st)
		}
	})
	t.Run("input is copied and ended", func(t *testing.T) {
		var out bytes.Buffer
		in := strings.Repeat("0123456789abcdef", 50_000)
		spec := sh("cat")
		spec.Stdin, spec.Stdout = strings.NewReader(in), &out
		if st := start(t, spec).Wait(); st.Code != 0 || out.String() != in {
			t.Errorf("status %+v, %d bytes of %d", st, out.Len(), len(in))
		}
	})
	t.Run("input that is never read does not hold the end", func(t *testing.T) {
		r, w := io.Pipe()
		defer w.Close()
		spec := sh("exit 5")
		spec.Stdin = r
		if st := start(t, spec).Wait(); st.Code != 5 {
			t.Errorf("status %+v", st)
		}
	})
	t.Run("a write to an input that nobody reads ends with the process", func(t *testing.T) {
		spec := sh("read line")
		spec.OpenStdin = true
		p := start(t, spec)
		_, err := p.Input().Write(append([]byte("go\n"), make([]byte, 1<<20)...))
		if err == nil {
			t.Error("a megabyte was taken by a process that reads a line")
		}
		p.Wait()
	})
	t.Run("a child left behind does not hold the end", func(t *testing.T) {
		var out bytes.Buffer
		spec := sh("sleep 1000 & echo $!")
		spec.Stdout = &out
		if st := start(t, spec).Wait(); st.Code != 0 || out.Len() == 0 {
			t.Errorf("status %+v, output %q", st, out.String())
		}
	})
	t.Run("nor does one that writes for ever", func(t *testing.T) {
		spec := sh("yes & exit 4")
		spec.Stdout = &limitWriter{}
		if st := start(t, spec).Wait(); st.Code != 4 {
			t.Errorf("status %+v", st)
		}
	})
	t.Run("the process gets SIGPIPE when its receiver fails", func(t *testing.T) {
		spec := Spec{Argv: []string{"yes"}}
		spec.Stdout = &limitWriter{max: 1}
		if st := start(t, spec).Wait(); st.Signal != "PIPE" {
			t.Errorf("status %+v", st)
		}
	})
	t.Run("a receiver that is slower than the drain loses nothing", func(t *testing.T) {
		gate := make(chan struct{})
		var out bytes.Buffer
		spec := sh("head -c 60000 /dev/zero")
		spec.Stdout = writerFunc(func(p []byte) (int, error) { <-gate; return out.Write(p) })
		p := start(t, spec)
		<-p.Ended()
		close(gate)
		if p.Wait(); out.Len() != 60000 {
			t.Errorf("%d bytes of 60000", out.Len())
		}
	})
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// limitWriter takes max bytes, or any number when max is 0.
type limitWriter struct{ max int }

func (w *limitWriter) Write(p []byte) (int, error) {
	if w.max > 0 && len(p) > w.max {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestTerminal(t *testing.T) {
	t.Run("is the controlling terminal and has the size", func(t *testing.T) {
		var out bytes.Buffer
		spec := sh("stty size </dev/tty; tty >/dev/null && echo terminal")
		spec.TTY, spec.Stdout = &frame.WindowSize{Rows: 33, Cols: 77}, &out
		if st := start(t, spec).Wait(); st.Code != 0 || out.String() != "33 77\r\nterminal\r\n" {
			t.Errorf("status %+v, output %q", st, out.String())
		}
	})
	t.Run("nothing of a long output is lost at the end", func(t *testing.T) {
		var out bytes.Buffer
		spec := sh("exec seq 1 100000")
		spec.TTY, spec.Stdout = &frame.WindowSize{}, &out
		if start(t, spec).Wait(); !strings.HasSuffix(out.String(), "\n99999\r\n100000\r\n") {
			t.Errorf("%d bytes", out.Len())
		}
	})
	t.Run("a typed interrupt reaches the foreground", func(t *testing.T) {
		r, w := io.Pipe()
		spec := Spec{Argv: []string{"sh", "-c", "echo ready; exec sleep 1000"}, TTY: &frame.WindowSize{}, Stdout: w}
		p := start(t, spec)
		waitFor(t, r, "ready")
		go io.Copy(io.Discard, r)
		if _, err := p.Input().Write([]byte{3}); err != nil {
			t.Fatal(err)
		}
		if st := p.Wait(); st.Signal != "INT" {
			t.Errorf("status %+v", st)
		}
	})
	t.Run("closing the input ends a program that reads lines", func(t *testing.T) {
		p := start(t, Spec{Argv: []string{"cat"}, TTY: &frame.WindowSize{}})
		if err := p.Input().Close(); err != nil {
			t.Fatal(err)
		}
		if st := p.Wait(); st.Code != 0 {
			t.Errorf("status %+v", st)
		}
	})
	t.Run("a program that closes its terminal lives on, and may open it again", func(t *testing.T) {
		var out bytes.Buffer
		spec := sh("exec <&- >&- 2>&-; /bin/true; /bin/true; exec >/dev/tty; echo back; exit 3")
		spec.TTY, spec.Stdout = &frame.WindowSize{}, &out
		if st := start(t, spec).Wait(); st.Code != 3 || out.String() != "back\r\n" {
			t.Errorf("status %+v, output %q", st, out.String())
		}
	})
	t.Run("a new size is told to the foreground", func(t *testing.T) {
		r, w := io.Pipe()
		spec := sh("trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.01; done")
		spec.TTY, spec.Stdout = &frame.WindowSize{Rows: 1, Cols: 2}, w
		p := start(t, spec)
		waitFor(t, r, "ready")
		if err := p.Resize(frame.WindowSize{Rows: 50, Cols: 132}); err != nil {
			t.Fatal(err)
		}
		waitFor(t, r, "50 132")
		go io.Copy(io.Discard, r)
		p.Wait()
	})
}

// waitFor reads r until text has come.
func waitFor(t *testing.T, r io.Reader, text string) {
	t.Helper()
	var got []byte
	buf := make([]byte, 1024)
	for !bytes.Contains(got, []byte(text)) {
		n, err := r.Read(buf)
		if got = append(got, buf[:n]...); err != nil {
			t.Fatalf("got %q, then %v; want %q", got, err, text)
		}
	}
}

func TestStop(t *testing.T) {
	t.Run("the end of ctx kills the whole group", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		spec := sh("sleep 1000 & echo ready; wait")
		spec.Stdout = w
		p, err := New().Start(ctx, spec)
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, r, "ready")
		cancel()
		if st := p.Wait(); st.Signal != "KILL" {
			t.Errorf("status %+v", st)
		}
		groupGone(t, p.PID())
	})
	t.Run("what ignores the signal is killed after the grace, and the rest of the group with it", func(t *testing.T) {
		r, w := io.Pipe()
		spec := sh("trap '' HUP; sleep 1000 & echo ready; wait")
		spec.Stdout = w
		p := start(t, spec)
		waitFor(t, r, "ready")
		p.Stop(syscall.SIGHUP, time.Millisecond)
		if st := p.Wait(); st.Signal != "KILL" {
			t.Errorf("status %+v", st)
		}
		groupGone(t, p.PID())
	})
	t.Run("a ctx that has ended starts nothing", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := New().Start(ctx, sh("exit 0")); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// groupGone waits until nothing is left of a process group: killed orphans are reaped by someone else, at their leisure.
func groupGone(t *testing.T, pgid int) {
	t.Helper()
	for syscall.Kill(-pgid, 0) == nil {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
		out, _ := exec.Command("ps", "-o", "stat=", "-g", fmt.Sprint(pgid)).Output()
		if strings.Trim(string(out), "Z+s \n") == "" {
			return // only zombies
		}
	}
}

func TestOutput(t *testing.T) {
	t.Run("returns standard output only", func(t *testing.T) {
		out, err := New().Output(t.Context(), sh("echo out; echo err >&2"))
		if err != nil || string(out) != "out\n" {
			t.Errorf("got %q, %v", out, err)
		}
	})
	t.Run("keeps standard error for the error", func(t *testing.T) {
		_, err := New().Output(t.Context(), sh("echo first >&2; echo fatal: broken >&2; exit 128"))
		var oe *OutputError
		if !errors.As(err, &oe) || oe.Status.Code != 128 || oe.Stderr != "first\nfatal: broken\n" ||
			err.Error() != "sh: exit status 128: fatal: broken" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("is killed with its ctx", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := New().Output(ctx, Spec{Argv: []string{"sleep", "1000"}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestSignals(t *testing.T) {
	for in, want := range map[string]syscall.Signal{"TERM": 15, "SIGINT": 2, "hup": 1, "9": 9, "40": 40} {
		if got, err := ParseSignal(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0", "65", "-1", "NONE"} {
		if _, err := ParseSignal(in); !errkind.Is(err, api.KindInvalid) {
			t.Errorf("%q: %v", in, err)
		}
	}
	if SignalName(40) != "40" {
		t.Errorf("a real-time signal is %q", SignalName(40))
	}
}
