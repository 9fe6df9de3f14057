package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// console is a person's side of a terminal in which a CLI runs.
type console struct {
	t         *testing.T
	user, tty *os.File
	cmd       *exec.Cmd
	seen      output
	before    unix.Termios
}

// console starts the CLI as the leader of a session with a terminal of 30 by 100.
func (h house) console(t *testing.T, args ...string) *console {
	t.Helper()
	user, tty, err := pty.Open()
	if err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	t.Cleanup(func() { user.Close(); tty.Close() })
	c := &console{t: t, user: user, tty: tty, cmd: h.command(args...)}
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 30, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	c.before = c.modes()
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = tty, tty, tty
	c.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.cmd.Process.Kill() }) //nolint:errcheck // it has ended, unless the test failed
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := user.Read(buf)
			if err != nil {
				return
			}
			c.seen.Write(buf[:n]) //nolint:errcheck // never fails
		}
	}()
	return c
}

func (c *console) modes() unix.Termios {
	c.t.Helper()
	m, err := unix.IoctlGetTermios(int(c.tty.Fd()), unix.TCGETS)
	if err != nil {
		c.t.Fatal(err)
	}
	return *m
}

// shows waits until the terminal shows a match of pattern after what an earlier call has found, and forgets it all.
func (c *console) shows(pattern string) {
	c.t.Helper()
	p := regexp.MustCompile(pattern)
	for range 600 {
		if p.MatchString(c.seen.String()) {
			c.seen.reset()
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	c.t.Fatalf("no %q on the terminal, but %q", pattern, c.seen.String())
}

func (o *output) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b.Reset()
}

func (c *console) types(keys string) {
	c.t.Helper()
	if _, err := c.user.WriteString(keys); err != nil {
		c.t.Fatal(err)
	}
}

// ends waits for the CLI's end, wants this exit status and the terminal as it was.
func (c *console) ends(code int) {
	c.t.Helper()
	wait(c.cmd)
	if got := c.cmd.ProcessState.ExitCode(); got != code {
		c.t.Errorf("exit status %d, want %d", got, code)
	}
	if after := c.modes(); after != c.before {
		c.t.Errorf("the terminal's modes were not restored:\n%+v, were\n%+v", after, c.before)
	}
}

// session uses a shell as a person does, from its prompt to `exit 5`. The markers are written so that the echo of what is typed
// does not hold them.
func (c *console) session() {
	c.t.Helper()
	c.types("stty size; echo re''ady\r")
	c.shows(`[\r\n]30 100\r\nready\r`)
	if err := pty.Setsize(c.tty, &pty.Winsize{Rows: 50, Cols: 132}); err != nil {
		c.t.Fatal(err)
	}
	c.types("until stty size | grep '50 132'; do :; done; echo si''zed\r")
	c.shows(`[\r\n]50 132\r\nsized\r`)
	c.types("sh -c 'echo be\"\"gun; exec sleep 1000'\r") // what is begun is in the foreground by then
	c.shows(`[\r\n]begun\r`)
	c.types("\x03")
	c.types("echo al''ive\r")
	c.shows(`[\r\n]alive\r`)
	if modes := c.modes(); modes.Lflag&(unix.ICANON|unix.ISIG|unix.ECHO) != 0 {
		c.t.Error("the terminal is not raw while the shell runs")
	}
	c.types("exit 5\r")
}

func TestTerminal(t *testing.T) {
	h := guests(t)
	t.Run("vm run in a repository is a shell in it, with size, Ctrl-C and exit status", func(t *testing.T) {
		repo := repository(t)
		c := h.console(t, "vm", "run", "--rm", "--memory", "256M", repo)
		c.shows(`:(~|/root)/repo[#$] `)
		c.types("pwd; git --no-pager log --format=%s; ls\r")
		c.shows(`[\r\n]/root/repo\r\nfirst\r\nhello.txt\r`)
		c.session()
		c.ends(5)
		h.empty(t)
	})
	t.Run("so is a shell by ssh, and by exec with the keyboard at a running command", func(t *testing.T) {
		h.must(t, "vm", "create", "--start", "--name", "tty", "--memory", "256M")
		defer h.must(t, "vm", "delete", "--force", "tty")
		c := h.console(t, "ssh", "tty")
		c.session()
		c.ends(5)
		c = h.console(t, "exec", "tty")
		c.session()
		c.ends(5)
		c = h.console(t, "exec", "-it", "tty", "--", "sh", "-c", "echo begun; exec cat")
		c.shows(`begun\r`)
		c.types("\x03")
		c.ends(130)
	})
}

// TestCompletion presses Tab in a real shell, which asks a real daemon.
func TestCompletion(t *testing.T) {
	h := guests(t)
	h.must(t, "vm", "create", "--name", "completed")
	defer h.must(t, "vm", "delete", "completed")
	script := func(shell string) string { return fmt.Sprintf("source <(banger completion %s)\n", shell) }
	for shell, ask := range map[string][]string{
		"bash": {"bash", "-c", "source /usr/share/bash-completion/bash_completion\n" + script("bash") +
			`COMP_WORDS=(banger vm start comp) COMP_CWORD=3 COMP_LINE="banger vm start comp" COMP_POINT=20 COMP_TYPE=9
__start_banger; echo "${COMPREPLY[@]}"`},
		"fish": {"fish", "-c", strings.Replace(script("fish"), "source <(banger completion fish)", "banger completion fish | source", 1) +
			`complete -C "banger vm start comp"`},
		"zsh": {"zsh", "-c", "autoload -U compinit; compinit -u -D\n" + script("zsh") + `[[ ${_comps[banger]} = _banger ]] && banger __complete vm start comp`},
	} {
		t.Run(shell+" completes a VM's name", func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skip("not installed: ", shell)
			}
			cmd := exec.Command(path, ask[1:]...)
			cmd.Env = append(os.Environ(), "BANGER_ROOT="+h.root)
			out, err := cmd.Output() // bash says on stderr that no key was pressed
			if err != nil || !strings.HasPrefix(string(out), "completed") {
				t.Errorf("%v: %q", err, out)
			}
		})
	}
}
