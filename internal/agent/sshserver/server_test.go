package sshserver

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/banger-vm/banger/internal/agent/proc"
	"github.com/banger-vm/banger/internal/agent/run"
)

// lab is a server in this process, on a loopback port, whose commands run as the user of the test.
type lab struct {
	addr       string
	user       string
	hostKey    ssh.Signer
	clientKey  ssh.Signer
	clientPEM  []byte
	authorized []string // authorized_keys(5) lines; the server reads them at each login
	stop       func()   // ends the server and waits for it; may be called twice
}

func newLab(t *testing.T) *lab {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{user: me.Username}
	var hostPEM []byte
	l.hostKey, hostPEM = newKey(t)
	l.clientKey, l.clientPEM = newKey(t)
	l.authorized = []string{"# a comment", string(ssh.MarshalAuthorizedKey(l.clientKey.PublicKey()))}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.addr = listener.Addr().String()
	s := New(Config{
		HostKey:        func() []byte { return hostPEM },
		AuthorizedKeys: func() []string { return l.authorized },
		Run:            run.New(proc.New(), func() []string { return nil }),
		Log:            slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- s.Serve(ctx, listener) }()
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(l.stop)
	return l
}

func newKey(t *testing.T) (ssh.Signer, []byte) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

func (l *lab) login(signer ssh.Signer) (*ssh.Client, error) {
	return ssh.Dial("tcp", l.addr, &ssh.ClientConfig{
		User: l.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(l.hostKey.PublicKey()),
	})
}

func (l *lab) client(t *testing.T) *ssh.Client {
	t.Helper()
	c, err := l.login(l.clientKey)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestLogin(t *testing.T) {
	t.Run("a key that is not authorized is refused", func(t *testing.T) {
		stranger, _ := newKey(t)
		if _, err := newLab(t).login(stranger); err == nil || !strings.Contains(err.Error(), "unable to authenticate") {
			t.Errorf("login: %v", err)
		}
	})
	for _, option := range []string{`command="true"`, "no-pty", "restrict", `environment="A=b"`, `from="10.0.0.1"`, "what-is-this"} {
		t.Run("a key with the option "+option+" is refused", func(t *testing.T) {
			l := newLab(t)
			l.authorized[1] = option + " " + l.authorized[1]
			if _, err := l.login(l.clientKey); err == nil || !strings.Contains(err.Error(), "unable to authenticate") {
				t.Errorf("login: %v", err)
			}
		})
	}
}

func TestSessions(t *testing.T) {
	c := newLab(t).client(t)
	t.Run("several run at once on one connection, each with its own streams and status", func(t *testing.T) {
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				s, err := c.NewSession()
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				var out, errs bytes.Buffer
				s.Stdin, s.Stdout, s.Stderr = strings.NewReader(fmt.Sprint("in ", i)), &out, &errs
				err = s.Run(fmt.Sprintf("cat; echo err %d >&2; exit %d", i, i+1))
				var exit *ssh.ExitError
				if !errors.As(err, &exit) || exit.ExitStatus() != i+1 || out.String() != fmt.Sprint("in ", i) || errs.String() != fmt.Sprintf("err %d\n", i) {
					t.Errorf("session %d: %v, output %q and %q", i, err, out.String(), errs.String())
				}
			})
		}
		all.Wait()
	})
	t.Run("the answer to exec comes before anything of the command", func(t *testing.T) {
		for range 50 {
			ch, requests, err := c.OpenChannel("session", nil)
			if err != nil {
				t.Fatal(err)
			}
			go ssh.DiscardRequests(requests)
			if ok, err := ch.SendRequest("exec", true, ssh.Marshal(textRequest{"exit 0"})); err != nil || !ok {
				t.Fatalf("exec: %v, %v", ok, err) // a channel closed before the answer is EOF
			}
			ch.Close()
		}
	})
	t.Run("a command that is missing has status 127", func(t *testing.T) {
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var exit *ssh.ExitError
		if err := s.Run("/no/such/program"); !errors.As(err, &exit) || exit.ExitStatus() != 127 {
			t.Errorf("run: %v", err)
		}
	})
	t.Run("a session has one program", func(t *testing.T) {
		ch, requests, err := c.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ch.Close()
		go ssh.DiscardRequests(requests)
		for i, want := range []bool{true, false} {
			if ok, err := ch.SendRequest("exec", true, ssh.Marshal(textRequest{"cat"})); err != nil || ok != want {
				t.Errorf("exec number %d: %v, %v", i+1, ok, err)
			}
		}
		if ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(textRequest{"sftp"})); err != nil || ok {
			t.Errorf("sftp in the same session: %v, %v", ok, err)
		}
	})
	t.Run("keep-alives are answered", func(t *testing.T) {
		if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("relative names of sftp begin in the user's home", func(t *testing.T) {
		files, err := sftp.NewClient(c)
		if err != nil {
			t.Fatal(err)
		}
		defer files.Close()
		me, err := proc.LookupUser(c.User())
		if err != nil {
			t.Fatal(err)
		}
		if dir, err := files.RealPath("."); err != nil || dir != me.Home {
			t.Errorf("%q, %v; want %q", dir, err, me.Home)
		}
	})
}

func TestClientGone(t *testing.T) {
	t.Run("its command gets SIGHUP", func(t *testing.T) {
		c := newLab(t).client(t)
		fifo := filepath.Join(t.TempDir(), "fifo")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start("exec 3>" + fifo + "; trap 'echo hung up >&3; exit' HUP; echo ready >&3; while :; do read x; done"); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(fifo)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := io.ReadFull(f, make([]byte, len("ready\n"))); err != nil {
			t.Fatal(err)
		}
		c.Close()
		if rest, err := io.ReadAll(f); err != nil || string(rest) != "hung up\n" {
			t.Errorf("%q, %v", rest, err)
		}
	})
	for _, gone := range []string{"connection", "channel"} {
		t.Run("what it had forwarded is closed with its "+gone+", although the other end says nothing", func(t *testing.T) {
			c := newLab(t).client(t)
			silent, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer silent.Close()
			near, err := c.Dial("tcp", silent.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			far, err := silent.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			if gone == "channel" {
				near.Close()
			} else {
				c.Close()
			}
			for err == nil { // closed in both directions, so that a write fails in the end
				_, err = far.Write([]byte("y"))
			}
		})
	}
	t.Run("the ports in the guest that led to it are free again", func(t *testing.T) {
		l := newLab(t)
		c := l.client(t)
		remote, err := c.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.stop()
		again, err := net.Listen("tcp", remote.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		again.Close()
	})
}
