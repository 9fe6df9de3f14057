package sshserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// openSSH is a lab with a configuration for OpenSSH's programs, in which the server is called "guest".
type openSSH struct {
	*lab
	dir    string
	config string
}

func newOpenSSH(t *testing.T) *openSSH {
	t.Helper()
	need(t, "ssh")
	l := newLab(t)
	host, port, err := net.SplitHostPort(l.addr)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	o := &openSSH{l, dir, filepath.Join(dir, "config")}
	o.write(t, "key", l.clientPEM)
	o.write(t, "known_hosts", []byte("guest "+string(ssh.MarshalAuthorizedKey(l.hostKey.PublicKey()))))
	o.write(t, "config", fmt.Appendf(nil, `Host guest
    HostName %s
    Port %s
    User %s
    HostKeyAlias guest
    IdentityFile %s/key
    IdentitiesOnly yes
    StrictHostKeyChecking yes
    UserKnownHostsFile %s/known_hosts
    GlobalKnownHostsFile /dev/null
    ExitOnForwardFailure yes
    BatchMode yes
    LogLevel ERROR
`, host, port, l.user, dir, dir))
	return o
}

func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("no %s here: scripts/deps test installs it", program)
	}
}

func (o *openSSH) write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(o.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (o *openSSH) read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(o.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// run runs a program of OpenSSH's with the configuration and returns what it printed and its status.
func (o *openSSH) run(t *testing.T, stdin string, program string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, append([]string{"-F", o.config}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must is run for a program that has to succeed.
func (o *openSSH) must(t *testing.T, stdin string, program string, args ...string) string {
	t.Helper()
	out, errs, code := o.run(t, stdin, program, args...)
	if code != 0 {
		t.Fatalf("%s %q: status %d\n%s", program, args, code, errs)
	}
	return out
}

func TestOpenSSH(t *testing.T) {
	o := newOpenSSH(t)
	binary := string([]byte{0, 1, 2, 0xff, '\n', '\r', 4})
	t.Run("a command has its input, both outputs, and its status", func(t *testing.T) {
		out, errs, code := o.run(t, binary, "ssh", "guest", "cat; echo oops >&2; exit 7")
		if out != binary || errs != "oops\n" || code != 7 {
			t.Errorf("status %d, output %q and %q", code, out, errs)
		}
	})
	t.Run("a terminal is one", func(t *testing.T) {
		if out := o.must(t, "", "ssh", "-tt", "guest", "stty size >/dev/null && tty"); !strings.HasPrefix(out, "/dev/pts/") {
			t.Errorf("output %q", out)
		}
	})
	t.Run("a shell without a command reads its input", func(t *testing.T) {
		if out, _, code := o.run(t, "echo $((40 + 2)); exit 5\n", "ssh", "-T", "guest"); !strings.HasSuffix(out, "42\n") || code != 5 {
			t.Errorf("status %d, output %q", code, out)
		}
	})
	t.Run("several sessions share one connection", func(t *testing.T) {
		control := filepath.Join(o.dir, "mux")
		o.must(t, "", "ssh", "-M", "-S", control, "-N", "-f", "guest")
		defer o.must(t, "", "ssh", "-S", control, "-O", "exit", "guest")
		for i := range 3 {
			if out, _, code := o.run(t, "", "ssh", "-S", control, "guest", fmt.Sprintf("echo %d; exit %d", i, i)); out != fmt.Sprintln(i) || code != i {
				t.Errorf("status %d, output %q", code, out)
			}
		}
	})
	t.Run("files go both ways with scp and sftp", func(t *testing.T) {
		from := o.write(t, "a b", []byte(binary))
		for name, args := range map[string][]string{"scp over sftp": {"-s", "-p", "-q"}, "the old scp": {"-O", "-p", "-q"}} {
			there, back := filepath.Join(o.dir, "there"), filepath.Join(o.dir, "back")
			o.must(t, "", "scp", append(args, from, "guest:"+there)...)
			o.must(t, "", "scp", append(args, "guest:"+there, back)...)
			if got := o.read(t, "back"); got != binary {
				t.Errorf("%s: %q", name, got)
			}
			os.Remove(back)
		}
		o.must(t, fmt.Sprintf("cd %s\nmkdir d\nrename there d/moved\nget d/moved %[1]s/back\n", o.dir), "sftp", "-q", "-b", "-", "guest")
		if got := o.read(t, "back"); got != binary {
			t.Errorf("sftp: %q", got)
		}
	})
	t.Run("rsync works", func(t *testing.T) {
		need(t, "rsync")
		for _, name := range []string{"tree/one", "tree/sub/two"} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(o.dir, name)), 0o700); err != nil {
				t.Fatal(err)
			}
			o.write(t, name, []byte(name+binary))
		}
		cmd := exec.CommandContext(t.Context(), "rsync", "-a", "-e", "ssh -F "+o.config, o.dir+"/tree/", "guest:"+o.dir+"/synced")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got := o.read(t, "synced/sub/two"); got != "tree/sub/two"+binary {
			t.Errorf("%q", got)
		}
	})
}

func TestOpenSSHForwarding(t *testing.T) {
	o := newOpenSSH(t)
	near := func(name string) string { return filepath.Join(o.dir, name) }
	t.Run("a local socket leads to a port and to a socket in the guest", func(t *testing.T) {
		for _, to := range []string{echo(t, "tcp", "127.0.0.1:0"), echo(t, "unix", near("echo"))} {
			cmd := o.hold(t, "-L", near("local")+":"+to)
			talk(t, "unix", near("local"))
			cmd()
			os.Remove(near("local"))
		}
	})
	t.Run("a port in the guest leads to the client", func(t *testing.T) {
		port := freePort(t)
		cmd := o.hold(t, "-R", port+":"+echo(t, "tcp", "127.0.0.1:0"))
		defer cmd()
		talk(t, "tcp", "127.0.0.1:"+port)
	})
	t.Run("a port that is taken cannot be forwarded", func(t *testing.T) {
		taken := echo(t, "tcp", "127.0.0.1:0")
		if _, errs, code := o.run(t, "", "ssh", "-R", taken+":127.0.0.1:1", "guest", "true"); code != 255 || !strings.Contains(errs, "forwarding failed") {
			t.Errorf("status %d: %s", code, errs)
		}
	})
	t.Run("the client's ssh-agent answers in the guest, and its socket goes with the session", func(t *testing.T) {
		need(t, "ssh-agent")
		cmd := exec.CommandContext(t.Context(), "ssh-agent", "sh", "-c",
			fmt.Sprintf(`ssh-add -q %s/key && exec ssh -A -F %s guest 'echo $SSH_AUTH_SOCK; stat -c %%a "${SSH_AUTH_SOCK%%/*}"; ssh-add -l'`, o.dir, o.config))
		out, err := cmd.CombinedOutput()
		lines := strings.Split(string(out), "\n")
		if err != nil || len(lines) < 3 || lines[1] != "700" || !strings.Contains(lines[2], ssh.FingerprintSHA256(o.clientKey.PublicKey())) {
			t.Fatalf("%v\n%s", err, out)
		}
		o.stop() // the client may be gone before the server has cleaned up
		if _, err := os.Stat(filepath.Dir(lines[0])); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket's directory is left: %v", err)
		}
	})
}

// hold starts a client that only forwards, and returns when that is set up, with what ends it.
func (o *openSSH) hold(t *testing.T, args ...string) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "ssh", append(append([]string{"-F", o.config}, args...), "guest", "echo ready; exec cat")...)
	hold, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	return func() {
		hold.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		cancel()
	}
}

// echo serves what it is sent, and returns where.
func echo(t *testing.T, network, address string) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

// talk says something to an echo behind a forwarding, ends its half, and wants everything back.
func talk(t *testing.T, network, address string) {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	said := bytes.Repeat([]byte("0123456789abcdef"), 32<<10)
	go func() {
		c.Write(said)
		c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	if heard, err := io.ReadAll(c); err != nil || !bytes.Equal(heard, said) {
		t.Errorf("%d bytes of %d came back: %v", len(heard), len(said), err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
