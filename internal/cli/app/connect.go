package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

// startDeadline is how long a daemon may take from its start to its first answer.
const startDeadline = 10 * time.Second

// Client returns a client of the daemon, which it starts when none runs.
func (a *App) Client(ctx context.Context) (*client.Client, error) {
	paths, err := a.Paths()
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, paths, client.Options{})
	if !errors.Is(err, client.ErrNotRunning) || paths.System {
		return c, err
	}
	if v := a.Env("BANGER_NO_START"); a.NoStart || v != "" && v != "0" {
		return nil, err
	}
	return a.StartDaemon(ctx, paths)
}

// RunningClient is Client for commands that must not start a daemon. anyVersion accepts one of another protocol version.
func (a *App) RunningClient(ctx context.Context, anyVersion bool) (*client.Client, error) {
	paths, err := a.Paths()
	if err != nil {
		return nil, err
	}
	return dial(ctx, paths, client.Options{AnyProtocol: anyVersion})
}

// dial is client.Dial, which does not know what to do about the system's daemon.
func dial(ctx context.Context, paths config.Paths, o client.Options) (*client.Client, error) {
	c, err := client.Dial(ctx, paths.Socket(), o)
	switch {
	case !paths.System:
	case errors.Is(err, client.ErrNotRunning):
		err = errkind.WithHint(err, "it is the system's: start it with `sudo systemctl start bangerd`; with BANGER_SYSTEM=0 you have one of your own")
	case errkind.Is(err, api.KindPermission):
		err = errkind.WithHint(err, "join the group with `sudo usermod -aG %s $USER` and log in again; with BANGER_SYSTEM=0 you have a daemon of your own",
			config.Group)
	}
	return c, err
}

// StartDaemon starts bangerd and returns once it answers. Of several programs that do so at once one starts it and the
// others wait, because check and start happen under a lock; the daemon's own lock is the second line of defence.
//
// The system's daemon is not started here: that is systemd's.
func (a *App) StartDaemon(ctx context.Context, paths config.Paths) (*client.Client, error) {
	if paths.System {
		return dial(ctx, paths, client.Options{})
	}
	if err := paths.Make(); err != nil {
		return nil, fmt.Errorf("prepare banger's directories: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*startDeadline, errkind.New(api.KindTimeout, "the daemon has not started within %s", 2*startDeadline))
	defer cancel()
	lock, err := lockWait(ctx, paths.Socket()+".start")
	if err != nil {
		return nil, fmt.Errorf("wait for another banger that starts the daemon: %w", err)
	}
	defer lock.Close()
	c, err := client.Dial(ctx, paths.Socket(), client.Options{})
	if !errors.Is(err, client.ErrNotRunning) {
		return c, err
	}
	return a.spawn(ctx, paths)
}

// lockWait is host.Lock that waits for as long as ctx allows.
func lockWait(ctx context.Context, path string) (*os.File, error) {
	for wait := newBackoff(); ; {
		f, err := host.Lock(path)
		if !errkind.Is(err, api.KindBusy) {
			return f, err
		}
		if err := wait.pause(ctx); err != nil {
			return nil, err
		}
	}
}

// spawn executes bangerd and waits for its first answer or its death.
func (a *App) spawn(ctx context.Context, paths config.Paths) (*client.Client, error) {
	program, err := a.DaemonProgram()
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(paths.DaemonLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	proc, err := host.Detached{Argv: []string{program}, Dir: "/", Stdout: log, Stderr: log}.Start()
	if err != nil {
		return nil, err
	}
	died := make(chan string, 1)
	go func() {
		st, err := proc.Wait()
		died <- fmt.Sprint(st, orEmpty(err))
	}()
	deadline, cancel := context.WithTimeout(ctx, startDeadline)
	defer cancel()
	for wait := newBackoff(); ; {
		c, err := client.Dial(deadline, paths.Socket(), client.Options{})
		if err == nil || !errors.Is(err, client.ErrNotRunning) && deadline.Err() == nil {
			return c, err
		}
		select {
		case how := <-died:
			return nil, startError(paths, from, "the daemon ended at once ("+how+")")
		default:
		}
		if wait.pause(deadline) != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, startError(paths, from, fmt.Sprintf("the daemon (pid %d) has not answered within %s", proc.Pid, startDeadline))
		}
	}
}

func orEmpty(err error) string {
	if err == nil {
		return ""
	}
	return " " + err.Error()
}

// startError says what went wrong with the end of what the daemon logged since the offset from.
func startError(paths config.Paths, from int64, what string) error {
	const lines = 8
	if tail := logSince(paths.DaemonLog(), from, lines); tail != "" {
		what += "; its last words:\n  " + strings.ReplaceAll(tail, "\n", "\n  ")
	}
	return errkind.WithHint(errkind.New(api.KindUnavailable, "start the daemon: %s", what),
		"the whole log is in %s", paths.DaemonLog())
}

func logSince(path string, from int64, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return ""
	}
	b, _ := io.ReadAll(io.LimitReader(f, 64<<10)) // what could be read is worth showing
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// DaemonProgram returns the path of bangerd: the one beside this program, else on PATH.
func (a *App) DaemonProgram() (string, error) {
	beside := filepath.Join(filepath.Dir(a.Executable), "bangerd")
	if st, err := os.Stat(beside); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
		return beside, nil
	}
	path, err := host.LookPath("bangerd")
	return path, errkind.WithHint(err, "install bangerd beside %s, or on PATH", a.Executable)
}

// backoff spaces attempts: 2 ms at first, doubling to 100 ms.
type backoff struct{ next time.Duration }

func newBackoff() *backoff { return &backoff{next: 2 * time.Millisecond} }

// pause waits, and returns ctx's cause when that ends first.
func (b *backoff) pause(ctx context.Context) error {
	t := time.NewTimer(b.next)
	defer t.Stop()
	b.next = min(2*b.next, 100*time.Millisecond)
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// StopDaemon asks the daemon to end and returns once nothing listens any more. VMs keep running.
func (a *App) StopDaemon(ctx context.Context) error {
	c, err := a.RunningClient(ctx, true)
	if err != nil {
		return err
	}
	if err := c.Stop(ctx); err != nil {
		return err
	}
	const patience = 30 * time.Second
	pid := c.Daemon().PID
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errkind.WithHint(
		errkind.New(api.KindTimeout, "the daemon (pid %d) has not ended within %s", pid, patience), "see `banger daemon logs`"))
	defer cancel()
	for wait := newBackoff(); ; {
		if _, err := host.StartTime(pid); errkind.Is(err, api.KindNotFound) {
			return nil
		}
		if err := wait.pause(ctx); err != nil {
			return err
		}
	}
}

// AwaitDaemon returns a client once a daemon answers, however long that takes. It does not start one.
func (a *App) AwaitDaemon(ctx context.Context) (*client.Client, error) {
	for wait := newBackoff(); ; {
		c, err := a.RunningClient(ctx, false)
		if !errors.Is(err, client.ErrNotRunning) {
			return c, err
		}
		if err := wait.pause(ctx); err != nil {
			return nil, err
		}
	}
}
