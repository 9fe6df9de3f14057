package cli_test

import (
	"bytes"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
)

// terminal puts c on a pseudo-terminal of 24 by 80 and returns the user's side and the program's.
func terminal(t *testing.T, c *cmdline) (user, tty *os.File) {
	t.Helper()
	user, tty, err := pty.Open()
	if err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	t.Cleanup(func() { user.Close(); tty.Close() })
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 24, Cols: 80}); err != nil {
		t.Fatal(err)
	}
	c.app.Streams = app.StdStreams(tty, tty, tty)
	return user, tty
}

func modes(t *testing.T, tty *os.File) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

// until reads from r until it has seen text.
func until(t *testing.T, r io.Reader, text string) string {
	t.Helper()
	var seen []byte
	buf := make([]byte, 1024)
	for !bytes.Contains(seen, []byte(text)) {
		n, err := r.Read(buf)
		if err != nil {
			t.Errorf("%v after %q", err, seen)
			return string(seen)
		}
		seen = append(seen, buf[:n]...)
	}
	return string(seen)
}

func TestTerminal(t *testing.T) {
	t.Run("a shell has a raw terminal that follows the size, and it is restored", func(t *testing.T) {
		d := fakedaemon.Start(t)
		sizes := make(chan string, 4)
		execs(d, func(c *fakedaemon.Call) {
			c.Frames().Write(frame.Stdout, []byte("$ "))
			fr := frame.NewReader(c)
			for {
				ft, p, err := fr.Next()
				switch {
				case err != nil:
					return
				case ft == frame.Resize:
					sizes <- string(p)
				case ft == frame.Stdin && string(p) == "\x03": // Ctrl-C is a byte for the guest's terminal
					c.Exit(frame.ExitStatus{Code: 5})
					return
				}
			}
		})
		c := banger(t, d).env(map[string]string{"TERM": "xterm"})
		user, tty := terminal(t, c)
		before := modes(t, tty)
		go func() {
			until(t, user, "$ ")
			if m := modes(t, tty); m.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 {
				t.Error("the terminal is not raw")
			}
			pty.Setsize(tty, &pty.Winsize{Rows: 50, Cols: 132})
			syscall.Kill(os.Getpid(), syscall.SIGWINCH)
			if got := <-sizes; got != `{"rows":50,"cols":132}` {
				t.Errorf("got %s", got)
			}
			user.WriteString("\x03")
		}()
		if c.run("exec", "web"); c.code != 5 {
			t.Errorf("exit status %d", c.code)
		}
		if modes(t, tty) != before {
			t.Error("the terminal was not restored")
		}
		var p api.VMExec
		d.Params(api.MethodVMExec, &p)
		if !p.TTY || !p.Login || p.Size == nil || *p.Size != (frame.WindowSize{Rows: 24, Cols: 80}) || strings.Join(p.Env, " ") != "TERM=xterm" {
			t.Errorf("got %+v", p)
		}
	})
	t.Run("it is restored when the connection is cut", func(t *testing.T) {
		d := fakedaemon.Start(t)
		execs(d, func(*fakedaemon.Call) {})
		c := banger(t, d)
		_, tty := terminal(t, c)
		before := modes(t, tty)
		if c.run("exec", "-it", "web", "top"); c.code != 69 || modes(t, tty) != before {
			t.Errorf("exit status %d", c.code)
		}
	})
	t.Run("it is restored when the terminal hangs up", func(t *testing.T) {
		d := fakedaemon.Start(t)
		execs(d, func(c *fakedaemon.Call) { c.Frames().Write(frame.Stdout, []byte("$ ")); c.HangUp() })
		c := banger(t, d)
		user, tty := terminal(t, c)
		before := modes(t, tty)
		go func() { until(t, user, "$ "); c.signal(syscall.SIGHUP) }()
		if c.run("exec", "--tty", "--interactive", "web"); c.code != 129 || modes(t, tty) != before {
			t.Errorf("exit status %d", c.code)
		}
	})
	t.Run("a command of run has no terminal unless it asks, and then stdin is not read", func(t *testing.T) {
		for _, tty := range []bool{false, true} {
			m := newMachine(t)
			m.On(api.MethodVMExec, func(c *fakedaemon.Call) { c.Reply(guestapi.ExecStarted{}); c.Exit(frame.ExitStatus{}) })
			c := banger(t, m.Daemon)
			user, _ := terminal(t, c)
			go io.Copy(io.Discard, user)
			args := []string{"vm", "run", "--no-workspace", "--rm", "--", "top"}
			if tty {
				args = append([]string{"vm", "run", "--tty"}, args[2:]...)
			}
			c.ok(args...)
			var p api.VMExec
			if m.Params(api.MethodVMExec, &p); p.TTY != tty || p.Stdin != tty {
				t.Errorf("--tty %v: %+v", tty, p)
			}
		}
	})
	t.Run("progress rewrites its line, errors are coloured, and NO_COLOR is heeded", func(t *testing.T) {
		for env, want := range map[string]string{"": "\x1b[31mbanger: \x1b[0mno VM", "1": "\nbanger: no VM"} {
			d := fakedaemon.Start(t)
			vms(d)
			operation(d, api.MethodVMBegin, "aaaaaaaaaaaa")
			d.Result(api.MethodVMDelete, api.Empty{})
			c := banger(t, d).env(map[string]string{"NO_COLOR": env})
			user, _ := terminal(t, c)
			seen := make(chan string, 1)
			go func() { seen <- until(t, user, "hint:") }()
			c.run("vm", "create")
			if got := <-seen; !strings.Contains(got, want) || !strings.Contains(got, "\r\x1b[K  boot      ") {
				t.Errorf("NO_COLOR=%q: got %q", env, got)
			}
		}
	})
}
