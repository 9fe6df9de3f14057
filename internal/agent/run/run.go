// Package run runs the commands that clients ask for: who they run as, where, and in which environment, and for
// [guestapi.MethodExec] the frames that carry their streams. The SSH server starts its commands here as well, so there is
// one notion of a command in the guest.
//
// A command belongs to its client. A connection that ends before the exit frame means that the client is gone: the command
// gets SIGHUP, as from a closed terminal, and what is left of its process group after [hangUpGrace] gets SIGKILL.
//
// The client may have a window of input under way that the command has not taken, and is told what it takes. So a command
// that does not read its input never keeps its client's signals, or the news that the client has gone, from being read.
package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/agent/proc"
)

// hangUpGrace is the time a command has between SIGHUP and SIGKILL.
const hangUpGrace = 2 * time.Second

// Service starts commands.
type Service struct {
	sup *proc.Supervisor
	env func() []string
}

// New returns a Service whose commands get env's variables over the user's own; env is called for each command.
func New(sup *proc.Supervisor, env func() []string) *Service {
	return &Service{sup: sup, env: env}
}

// Handlers returns the agent's methods that this package serves.
func (s *Service) Handlers() map[string]call.Handler {
	return map[string]call.Handler{guestapi.MethodExec: s.exec}
}

// Start starts spec with its output going to stdout and stderr, which are written from a goroutine each. The caller waits
// for the process, and hangs up on it with [HangUp] when its client goes away. Errors are those of
// [proc.Supervisor.Start] and [proc.LookupUser], and of kind invalid for a bad spec.
func (s *Service) Start(ctx context.Context, spec guestapi.ExecSpec, stdout, stderr io.Writer) (*proc.Process, error) {
	p, err := s.Spec(spec)
	if err != nil {
		return nil, err
	}
	p.Stdout, p.Stderr = stdout, stderr
	return s.sup.Start(ctx, p)
}

// StartSpec is [proc.Supervisor.Start] of what [Service.Spec] returned.
func (s *Service) StartSpec(ctx context.Context, spec proc.Spec) (*proc.Process, error) {
	return s.sup.Start(ctx, spec)
}

// Spec is what the agent runs for spec, without outputs: as its user, in its directory, with its environment over the VM's. Errors
// are those of [proc.LookupUser], and of kind invalid for a bad environment.
func (s *Service) Spec(spec guestapi.ExecSpec) (proc.Spec, error) {
	user, err := proc.LookupUser(spec.User)
	if err != nil {
		return proc.Spec{}, err
	}
	env, err := proc.MergeEnv(user.Environ(spec.TTY), s.env(), spec.Env)
	if err != nil {
		return proc.Spec{}, err
	}
	p := proc.Spec{Argv: spec.Argv, Env: env, Dir: spec.Cwd, User: &user}
	if len(p.Argv) == 0 && spec.Login {
		p.Argv = []string{user.Shell}
		p.Argv0 = "-" + path.Base(user.Shell) // login(1)
	}
	if p.Dir == "" {
		p.Dir = homeOf(user)
	}
	if spec.TTY {
		p.TTY = new(frame.WindowSize)
		if spec.Size != nil {
			*p.TTY = *spec.Size
		}
	} else {
		p.OpenStdin = spec.Stdin
	}
	return p, nil
}

// homeOf returns the directory that u's commands begin in: the home, or the root directory where that is missing.
func homeOf(u proc.User) string {
	if fi, err := os.Stat(u.Home); err != nil || !fi.IsDir() {
		return "/"
	}
	return u.Home
}

// HangUp ends the process of a client that has gone, as the package comment says. It returns when the process has ended.
func HangUp(p *proc.Process) { p.Stop(syscall.SIGHUP, hangUpGrace) }

// exec serves [guestapi.MethodExec]. A command that cannot be executed is no error of the call: it is accepted, with
// process number 0, and ends with status 126 or 127, as in a shell.
func (s *Service) exec(ctx context.Context, c *call.Call) (any, error) {
	var spec guestapi.ExecSpec
	if err := c.Params(&spec); err != nil {
		return nil, err
	}
	out := &gate{w: c, open: make(chan struct{})}
	frames := frame.NewWriter(out)
	p, err := s.Start(context.WithoutCancel(ctx), spec, frames.Stream(frame.Stdout), frames.Stream(frame.Stderr))
	var notRun *proc.ExecError
	if errors.As(err, &notRun) {
		close(out.open)
		if err := c.Accept(guestapi.ExecStarted{}); err != nil {
			return nil, err
		}
		return nil, frames.WriteJSON(frame.Exit, proc.Status(err))
	}
	if err != nil {
		return nil, err
	}
	go s.control(ctx, c, frames, p)
	err = c.Accept(guestapi.ExecStarted{PID: p.PID(), StdinWindow: window})
	close(out.open)
	overdue := Limit(p, time.Duration(spec.TimeoutMS)*time.Millisecond)
	status := p.Wait()
	if overdue() {
		status = Overdue(spec.TimeoutMS)
	}
	if err == nil {
		err = frames.WriteJSON(frame.Exit, status)
	}
	return nil, err
}

// statusTimeout is the status of a command that took too long, as of timeout(1).
const statusTimeout = 124

// Overdue is the status of a command that had not ended after so many milliseconds.
func Overdue(ms int64) frame.ExitStatus {
	return frame.ExitStatus{Code: statusTimeout, Error: fmt.Sprintf("the command did not end within %d ms", ms)}
}

// Limit ends a process that has not ended after d; zero is for ever. overdue ends the watch and reports whether it was needed.
func Limit(p *proc.Process, d time.Duration) (overdue func() bool) {
	if d <= 0 {
		return func() bool { return false }
	}
	var hit atomic.Bool
	timer := time.AfterFunc(d, func() {
		select {
		case <-p.Ended():
		default:
			hit.Store(true)
			p.Stop(syscall.SIGTERM, hangUpGrace)
		}
	})
	return func() bool { timer.Stop(); return hit.Load() }
}

// gate holds writes back until the response line is out.
type gate struct {
	w    io.Writer
	open chan struct{}
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	return g.w.Write(p)
}

// control obeys the client's frames until the connection ends, and hangs up then, or when ctx ends.
func (s *Service) control(ctx context.Context, c *call.Call, frames *frame.Writer, p *proc.Process) {
	stop := context.AfterFunc(ctx, func() { HangUp(p) })
	defer stop()
	obey(frame.NewReader(c), frames, p)
	c.Close() // the client reads nothing any more; output that waits for it ends here
	select {
	case <-p.Ended():
	default:
		HangUp(p)
	}
}

// obey carries out the frames from r until it ends. A frame that makes no sense ends it as well.
func obey(r *frame.Reader, w *frame.Writer, p *proc.Process) {
	var stdin *feeder
	if input := p.Input(); input != nil {
		stdin = feed(input, func(n int) { _ = w.WriteJSON(frame.StdinTaken, n) }) // a client that has gone shows in r
		defer stdin.stop()
	}
	for {
		t, payload, err := r.Next()
		if err != nil {
			return
		}
		switch t {
		case frame.Stdin:
			if stdin != nil {
				stdin.add(payload)
			}
		case frame.StdinEOF:
			if stdin != nil {
				stdin.end()
			}
		case frame.Resize:
			var size frame.WindowSize
			if json.Unmarshal(payload, &size) == nil {
				_ = p.Resize(size) // fails when the process has ended
			}
		case frame.Signal:
			if sig, err := proc.ParseSignal(string(payload)); err == nil {
				_ = p.Signal(sig) // fails when the process has ended
			}
		}
	}
}
