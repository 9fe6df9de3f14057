package sshserver

import (
	"context"
	"fmt"
	"io"
	"os"
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
	conn    *ssh.ServerConn
	ch      ssh.Channel
	spec    guestapi.ExecSpec
	begun   bool          // it has its program
	process *proc.Process // nil before it runs, and for sftp
	agent   io.Closer     // the socket that leads to the client's ssh-agent; nil without one
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

func (s *Server) serveSession(ctx context.Context, conn *ssh.ServerConn, nc ssh.NewChannel) {
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	x := &session{s: s, conn: conn, ch: ch, spec: guestapi.ExecSpec{User: conn.User(), Stdin: true}}
	for r := range requests {
		program := x.program(r)
		ok := program != nil || x.request(ctx, r)
		if r.WantReply {
			r.Reply(ok, nil)
		}
		if program != nil { // after the reply, so that nothing of it can come before
			program(ctx)
		}
	}
	if x.agent != nil {
		x.agent.Close()
	}
	if x.process != nil { // the client is gone
		select {
		case <-x.process.Ended():
		default:
			run.HangUp(x.process)
		}
	}
}

// program returns what starts the program that r asks for, and nil when r asks for none or may not.
func (x *session) program(r *ssh.Request) func(context.Context) {
	var p textRequest
	if x.begun || r.Type != "shell" && ssh.Unmarshal(r.Payload, &p) != nil {
		return nil
	}
	var program func(context.Context)
	switch r.Type {
	case "shell":
		x.spec.Login = true
		program = x.start
	case "exec":
		program = func(ctx context.Context) { x.exec(ctx, p.Text) }
	case "subsystem":
		// The agent serves files as itself, so it can do so for its own account only.
		u, err := proc.LookupUser(x.spec.User)
		if err != nil || p.Text != "sftp" || int(u.UID) != os.Getuid() {
			return nil
		}
		program = func(context.Context) { go x.serveSFTP(u.Home) }
	}
	x.begun = program != nil
	return program
}

// request obeys a request that starts no program and reports whether it could.
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
	case "auth-agent-req@openssh.com":
		return x.forwardAgent(ctx)
	case "window-change":
		var p windowChange
		return x.process != nil && ssh.Unmarshal(r.Payload, &p) == nil &&
			x.process.Resize(frame.WindowSize{Rows: uint16(p.Rows), Cols: uint16(p.Cols)}) == nil
	case "signal":
		var p textRequest
		return x.process != nil && ssh.Unmarshal(r.Payload, &p) == nil && signal(x.process, p.Text)
	}
	return false
}

// exec runs text by the user's shell, as sshd does; nothing is quoted or added here.
func (x *session) exec(ctx context.Context, text string) {
	u, err := proc.LookupUser(x.spec.User)
	if err != nil {
		go x.refuse(err)
		return
	}
	x.spec.Argv = []string{u.Shell, "-c", text}
	x.start(ctx)
}

// refuse ends the session of a program that could not be run.
func (x *session) refuse(err error) {
	fmt.Fprintln(x.ch.Stderr(), "banger-agent:", err)
	x.end(proc.Status(err))
}

func signal(p *proc.Process, name string) bool {
	sig := unix.SignalNum("SIG" + name)
	return sig != 0 && p.Signal(syscall.Signal(sig)) == nil
}

// start runs the session's program.
func (x *session) start(ctx context.Context) {
	p, err := x.s.cfg.Run.Start(context.WithoutCancel(ctx), x.spec, x.ch, x.ch.Stderr())
	if err != nil {
		go x.refuse(err)
		return
	}
	x.process = p
	go func() {
		io.Copy(p.Input(), x.ch)
		if !x.spec.TTY {
			p.Input().Close()
		}
	}()
	go func() { x.end(p.Wait()) }()
}

// serveSFTP serves files; home is where relative names begin.
func (x *session) serveSFTP(home string) {
	server, err := sftp.NewServer(x.ch, sftp.WithServerWorkingDirectory(home))
	if err == nil {
		err = server.Serve()
	}
	code := 0
	if err != nil && err != io.EOF {
		code = 1
	}
	x.end(frame.ExitStatus{Code: code})
}

// end sends the exit status, the end of the output, which has all been sent, and the end of the channel. As in OpenSSH's server the
// status comes first: a client that shares its connection (ControlMaster) may let go of a channel at the end of the output.
func (x *session) end(st frame.ExitStatus) {
	x.ch.SendRequest("exit-status", false, ssh.Marshal(exitStatus{uint32(st.Code)}))
	x.ch.CloseWrite()
	x.ch.Close()
}
