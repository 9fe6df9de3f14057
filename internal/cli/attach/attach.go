// Package attach joins a command in a guest to this process's streams: with a terminal in raw mode whose size is followed,
// or with plain pipes and forwarded signals. The terminal is restored however the command ends: by a return, a panic of
// this goroutine, or the signal that ends the process (app.Interrupts).
package attach

import (
	"context"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
)

// Options say how a command is attached.
type Options struct {
	Input    bool // pass standard input on
	Terminal bool // give the command a terminal; needs standard input and output to be terminals
}

// Run starts the command in p, passes its streams on until it ends, and returns how it ended. p's TTY, Size, Stdin and
// TERM are set here.
//
// Signals to this process go to the command while it runs; when the same is sent again and the command still runs, Run hangs
// up on it and returns an [app.SignalError].
func Run(ctx context.Context, a *app.App, c *client.Client, p api.VMExec, o Options) (frame.ExitStatus, error) {
	ctx, hangUp := context.WithCancelCause(ctx)
	defer hangUp(nil)
	std := client.Stdio{Out: a.Out, Err: a.Err}
	if o.Input || o.Terminal {
		std.In = a.In
	}
	if o.Terminal {
		p.TTY = true
		p.Size = size(a.Out)
		if t := a.Env("TERM"); t != "" {
			p.Env = append([]string{"TERM=" + t}, p.Env...)
		}
	}
	proc, err := c.VMExec(ctx, p, std)
	if err != nil {
		return frame.ExitStatus{}, err
	}
	defer proc.Close()
	if o.Terminal {
		restore, err := raw(a)
		if err != nil {
			return frame.ExitStatus{}, err
		}
		defer restore()
		defer followSize(a.Out, proc)()
	}
	defer a.Signals.Redirect(forward(proc, hangUp))()
	return proc.Wait()
}

// forward sends each signal on to proc, and hangs up at the second of a kind. SIGHUP means that nobody is there any more.
func forward(proc *client.Process, hangUp context.CancelCauseFunc) func(syscall.Signal) {
	seen := map[syscall.Signal]bool{}
	return func(s syscall.Signal) {
		if seen[s] || s == syscall.SIGHUP {
			hangUp(app.SignalError{Signal: s})
			return
		}
		seen[s] = true
		go proc.Signal(strings.TrimPrefix(unix.SignalName(s), "SIG")) // a stalled guest must not hold the next signal up
	}
}

// raw puts standard input's terminal into raw mode and returns what puts it back.
func raw(a *app.App) (restore func(), err error) {
	f, ok := a.In.(*os.File)
	if !ok {
		return func() {}, nil
	}
	fd := int(f.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	back := func() { term.Restore(fd, old) }
	undo := a.Signals.OnExit(back)
	return func() { back(); undo() }, nil
}

// followSize tells proc of each new size of the terminal until the returned function is called.
func followSize(w io.Writer, proc interface {
	Resize(size frame.WindowSize) error
}) (stop func()) {
	c, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(c, syscall.SIGWINCH)
	go func() {
		for {
			select {
			case <-c:
				if s := size(w); s != nil {
					proc.Resize(*s)
				}
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(c); close(done) }
}

func size(w io.Writer) *frame.WindowSize {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	cols, rows, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return nil
	}
	return &frame.WindowSize{Rows: uint16(rows), Cols: uint16(cols)}
}

// Exit turns a command's end into the error that ends this process the same way: nil, or an [app.ExitError] with the same
// status. Why a command could not run at all is printed.
func Exit(a *app.App, st frame.ExitStatus) error {
	if st.Code == 0 && st.Error == "" {
		return nil
	}
	if st.Error != "" {
		io.WriteString(a.Err, "banger: "+strings.TrimSpace(st.Error)+"\n")
	}
	return app.ExitError{Code: max(st.Code, 1)}
}
