package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/internal/errkind"
)

// Spec is a command to start. There is no shell: Argv is passed on as it is.
type Spec struct {
	Argv  []string // the program, looked up in the PATH of Env when it has no slash, and its arguments
	Argv0 string   // what the program sees as its name; default Argv[0]
	Env   []string // NAME=VALUE, the whole environment
	Dir   string   // working directory; default the agent's
	User  *User    // nil: as the agent

	// Stdin, Stdout, Stderr. nil is /dev/null. An *os.File becomes the child's own descriptor, and closing it after Start
	// stays with the caller. Any other reader or writer is copied through a pipe: then Wait also waits for the output, in
	// the way it describes, but never for a read of Stdin. Stdout and Stderr are written from a goroutine each.
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer

	Cgroup *os.File // directory of the cgroup (v2) that it starts in; nil: the agent's

	OpenStdin bool              // instead of Stdin: a pipe that [Process.Input] writes to
	TTY       *frame.WindowSize // instead of Stdin and Stderr: a new controlling terminal, its output copied to Stdout
}

// ExecError is a command that could not be executed: [Status] has the exit status that stands for it.
type ExecError struct {
	Name string // as the caller gave it
	Err  error
}

func (e *ExecError) Error() string { return fmt.Sprintf("run %q: %v", e.Name, e.Err) }

// Unwrap returns the reason.
func (e *ExecError) Unwrap() error { return e.Err }

// Status returns the exit status that stands for an error of [Supervisor.Start]: 127 when the command was not found and
// 126 otherwise, with the reason in Error.
func Status(err error) frame.ExitStatus {
	code := 126
	if errkind.Is(err, api.KindNotFound) {
		code = 127
	}
	return frame.ExitStatus{Code: code, Error: err.Error()}
}

// Process is a child that was started.
type Process struct {
	sup    *Supervisor
	pid    int
	ended  chan struct{}
	status frame.ExitStatus // valid once ended is closed
	stdio  *stdio
}

// Start starts spec as leader of a new session. When ctx ends before the process does, its whole group is killed.
//
// A command that is missing is an [*ExecError] of kind not-found; one that may not be executed is one of kind
// permission, or invalid when the kernel does not know the format. A bad Dir is an error of kind not-found or invalid, and
// no ExecError. After an error nothing runs and nothing is left open.
func (s *Supervisor) Start(ctx context.Context, spec Spec) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := CheckDir(spec.Dir); err != nil {
		return nil, err
	}
	path, err := LookPath(spec)
	if err != nil {
		return nil, err
	}
	std, fds, err := s.openStdio(spec)
	if err != nil {
		return nil, fmt.Errorf("run %q: %w", spec.Argv[0], err)
	}
	argv := spec.Argv
	if spec.Argv0 != "" {
		argv = append([]string{spec.Argv0}, argv[1:]...)
	}
	attr := &syscall.ProcAttr{Dir: spec.Dir, Env: spec.Env, Files: fds[:], Sys: &syscall.SysProcAttr{
		Setsid: true, Setctty: spec.TTY != nil, Credential: spec.User.credential(),
	}}
	if spec.Cgroup != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(spec.Cgroup.Fd())
	}
	p := &Process{sup: s, ended: make(chan struct{}), stdio: std}

	s.mu.Lock()
	p.pid, err = syscall.ForkExec(path, argv, attr)
	if err == nil {
		s.procs[p.pid] = p
	}
	s.mu.Unlock()

	p.stdio.closeChildEnds()
	if err != nil {
		p.stdio.abandon()
		return nil, execError(spec.Argv[0], err)
	}
	p.stdio.start()
	if !s.reaper {
		go s.wait(p)
	}
	if ctx.Done() != nil {
		go p.killWith(ctx)
	}
	return p, nil
}

// CheckDir is the check of a working directory that [Supervisor.Start] makes; empty is fine.
func CheckDir(dir string) error {
	if dir == "" {
		return nil
	}
	fi, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errkind.WithHint(errkind.New(api.KindNotFound, "working directory %q does not exist in the guest", dir),
			"create it first, or name another directory")
	case err != nil:
		return fmt.Errorf("working directory: %w", err)
	case !fi.IsDir():
		return errkind.New(api.KindInvalid, "working directory %q is not a directory", dir)
	}
	return nil
}

// execError words the errno of an exec whose program was found before.
func execError(name string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOENT):
		err = errkind.New(api.KindInvalid, "the interpreter or loader it names is missing")
	case errors.Is(err, syscall.ENOEXEC):
		err = errkind.WithHint(errkind.New(api.KindInvalid, "exec format error"),
			"it is no program for this processor, or a script without a #! line")
	case errors.Is(err, syscall.E2BIG):
		err = errkind.New(api.KindInvalid, "arguments and environment are too long")
	case errors.Is(err, syscall.EINVAL):
		err = errkind.New(api.KindInvalid, "an argument or variable holds a zero byte")
	}
	return &ExecError{Name: name, Err: err}
}

// PID returns the process's number, which is its group's and session's as well.
func (p *Process) PID() int { return p.pid }

// Ended is closed when the process has ended. Its output may still be on the way.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Wait waits until the process has ended and what it wrote to a pipe of Start's has been passed on, and returns its
// status. Others that hold the pipe open, such as a daemon it left behind, do not hold Wait for ever: see [drainWait].
// A reader that takes its time is waited for. Wait may be called more than once.
func (p *Process) Wait() frame.ExitStatus {
	<-p.ended
	p.stdio.wait()
	return p.status
}

// Input returns what writes to the process's terminal, or to the pipe of [Spec].OpenStdin, and nil without either. Close
// ends the input. A write waits while the process does not read, and fails once it has ended.
func (p *Process) Input() io.WriteCloser {
	if p.stdio.stdin == nil || p.stdio.source != nil {
		return nil
	}
	return input{p.stdio}
}

// Stop sends sig to the process's group, gives it grace to end, and kills what is left of the group then. It returns when
// the process has ended. Killing a group does not reach processes that made a session of their own, as daemons do.
func (p *Process) Stop(sig syscall.Signal, grace time.Duration) {
	_ = p.Signal(sig) // it may have ended already
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
	}
	p.Kill()
	<-p.ended
}

// Signal sends sig to the process's group. It is os.ErrProcessDone when the process has ended.
func (p *Process) Signal(sig syscall.Signal) error {
	p.sup.mu.Lock()
	defer p.sup.mu.Unlock()
	select {
	case <-p.ended:
		return os.ErrProcessDone
	default:
		return syscall.Kill(-p.pid, sig)
	}
}

// Kill kills the process's group with SIGKILL. It works for what is left of the group just after the process ended, too.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.pid, syscall.SIGKILL) // ESRCH: nobody is left
}

func (p *Process) killWith(ctx context.Context) {
	select {
	case <-ctx.Done():
		_ = p.Signal(syscall.SIGKILL) // it has just ended by itself
	case <-p.ended:
	}
}
