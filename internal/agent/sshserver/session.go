package sshserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/proc"
	"github.com/banger-vm/banger/internal/agent/run"
)

// session is one session channel (RFC 4254, 6). Requests come one after the other; after shell, exec or subsystem a
// session has its one program.
type session struct {
	s       *Server
	ch      ssh.Channel
	spec    guestapi.ExecSpec
	process *proc.Process // nil before it runs
}

// Payloads of requests: RFC 4254, 6.2 to 6.10.
type (
	ptyRequest struct {
		Term                      string
		Cols, Rows, Width, Height uint32
		Modes                     string
	}
	windowChange struct{ Cols, Rows, Width, Height uint32 }
	envRequest   struct{ Name, Value string }
	textRequest  struct{ Text string }
	exitStatus   struct{ Status uint32 }
)

func (s *Server) serveSession(ctx context.Context, user string, nc ssh.NewChannel) {
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	x := &session{s: s, ch: ch, spec: guestapi.ExecSpec{User: user, Stdin: true}}
	for r := range requests {
		ok := x.request(ctx, r)
		if r.WantReply {
			r.Reply(ok, nil)
		}
	}
	if x.process != nil { // the client is gone
		select {
		case <-x.process.Ended():
		default:
			run.HangUp(x.process)
		}
	}
}

// request obeys one request and reports whether it could.
func (x *session) request(ctx context.Context, r *ssh.Request) bool {
	switch r.Type {
	case "pty-req":
		var p ptyRequest
		if ssh.Unmarshal(r.Payload, &p) != nil {
			return false
		}
		x.spec.TTY, x.spec.Size = true, &frame.WindowSize{Rows: uint16(p.Rows), Cols: uint16(p.Cols)}
		x.spec.Env = append(x.spec.Env, "TERM="+p.Term)
		return true
	case "env":
		var p envRequest
		if ssh.Unmarshal(r.Payload, &p) != nil || p.Name != "LANG" && !strings.HasPrefix(p.Name, "LC_") {
			return false // as sshd's AcceptEnv on Debian
		}
		x.spec.Env = append(x.spec.Env, p.Name+"="+p.Value)
		return true
	case "window-change":
		var p windowChange
		return x.process != nil && ssh.Unmarshal(r.Payload, &p) == nil &&
			x.process.Resize(frame.WindowSize{Rows: uint16(p.Rows), Cols: uint16(p.Cols)}) == nil
	case "signal":
		var p textRequest
		return x.process != nil && ssh.Unmarshal(r.Payload, &p) == nil && signal(x.process, p.Text)
	case "shell":
		x.spec.Login = true
		return x.start(ctx)
	case "exec":
		var p textRequest
		if ssh.Unmarshal(r.Payload, &p) != nil {
			return false
		}
		// SSH hands over one string for the user's shell, as sshd does; nothing is quoted or added here.
		u, err := proc.LookupUser(x.spec.User)
		if err != nil {
			return false
		}
		x.spec.Argv = []string{u.Shell, "-c", p.Text}
		return x.start(ctx)
	case "subsystem":
		var p textRequest
		if ssh.Unmarshal(r.Payload, &p) != nil || p.Text != "sftp" || x.spec.User != "root" {
			return false // the agent serves files as itself, which is root
		}
		go x.serveSFTP()
		return true
	}
	return false
}

func signal(p *proc.Process, name string) bool {
	sig := unix.SignalNum("SIG" + name)
	return sig != 0 && p.Signal(syscall.Signal(sig)) == nil
}

// start runs the session's program.
func (x *session) start(ctx context.Context) bool {
	if x.process != nil {
		return false
	}
	p, err := x.s.cfg.Run.Start(context.WithoutCancel(ctx), x.spec, x.ch, x.ch.Stderr())
	if err != nil {
		fmt.Fprintln(x.ch.Stderr(), "banger-agent:", err)
		go x.end(frame.ExitStatus{Code: proc.Status(err).Code})
		return true
	}
	x.process = p
	go func() {
		input := p.Input()
		if input == nil {
			return
		}
		io.Copy(input, x.ch)
		if !x.spec.TTY {
			input.Close()
		}
	}()
	go func() { x.end(p.Wait()) }()
	return true
}

func (x *session) serveSFTP() {
	server, err := sftp.NewServer(x.ch)
	if err == nil {
		err = server.Serve()
	}
	code := 0
	if err != nil && err != io.EOF {
		code = 1
	}
	x.end(frame.ExitStatus{Code: code})
}

// end sends the exit status and closes the channel.
func (x *session) end(st frame.ExitStatus) {
	x.ch.CloseWrite()
	x.ch.SendRequest("exit-status", false, ssh.Marshal(exitStatus{uint32(st.Code)}))
	x.ch.Close()
}

// directTCPIP is the payload of a channel for local forwarding: RFC 4254, 7.2.
type directTCPIP struct {
	Host       string
	Port       uint32
	OriginHost string
	OriginPort uint32
}

func forward(ctx context.Context, nc ssh.NewChannel) {
	var p directTCPIP
	if err := ssh.Unmarshal(nc.ExtraData(), &p); err != nil {
		nc.Reject(ssh.ConnectionFailed, "bad payload")
		return
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port))))
	if err != nil {
		nc.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	defer conn.Close()
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	go ssh.DiscardRequests(requests)
	up := make(chan struct{})
	go func() {
		io.Copy(conn, ch)
		conn.(*net.TCPConn).CloseWrite()
		close(up)
	}()
	io.Copy(ch, conn)
	ch.CloseWrite()
	<-up
}
