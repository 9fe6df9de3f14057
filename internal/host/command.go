// Package host is the ground under the daemon and the CLI: running programs, atomic files, locks, processes, and facts about
// the machine. It is the only package outside the guest that imports os/exec.
package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Command is a program to run to its end. There is no shell: Argv is passed on as it is.
type Command struct {
	Argv   []string
	Dir    string
	Env    []string // added to the caller's environment, NAME=VALUE; later ones win
	Unset  []string // names taken out of the caller's environment
	Stdin  io.Reader
	Stdout io.Writer // nil: kept for [Output], and for the error
	Stderr io.Writer // nil: kept for the error
	// Group runs the program in a process group of its own. Signals go to all of the group, which does not outlive the
	// program; and a program that signals its group, as shells and mmdebstrap do, does not reach the caller.
	Group bool
}

// ExitError is a program that ended with a failure. Output is the end of what it wrote to standard error (of both streams
// when they were not taken), at most 16 KiB.
type ExitError struct {
	Argv   []string
	Status string // as os.ProcessState prints it
	Code   int    // exit status, -1 when a signal ended it
	Output string
}

func (e *ExitError) Error() string {
	msg := fmt.Sprintf("%s: %s", filepath.Base(e.Argv[0]), e.Status)
	if last := lastLine(e.Output); last != "" {
		msg += ": " + last
	}
	return msg
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// killGrace is how long a program has between SIGTERM, sent when ctx ends, and SIGKILL.
const killGrace = 5 * time.Second

// Run runs c to its end. When ctx ends, the program gets SIGTERM and later SIGKILL. A program that is not installed is
// an error of kind unavailable; one that fails is an [*ExitError].
func Run(ctx context.Context, c Command) error {
	_, err := Output(ctx, c)
	return err
}

// Output is [Run], and returns standard output when c.Stdout is nil.
func Output(ctx context.Context, c Command) ([]byte, error) {
	path, err := LookPath(c.Argv[0])
	if err != nil {
		return nil, errkind.WithHint(errkind.New(api.KindUnavailable, "program %q is not installed", c.Argv[0]),
			"install it; on Debian, `make deps` installs everything banger needs")
	}
	cmd := exec.CommandContext(ctx, path, c.Argv[1:]...)
	cmd.Dir = c.Dir
	if len(c.Env) > 0 || len(c.Unset) > 0 {
		cmd.Env = append(without(os.Environ(), c.Unset), c.Env...)
	}
	cmd.Cancel = func() error { return terminate(cmd.Process) }
	if c.Group {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return signalGroup(cmd.Process, syscall.SIGTERM) }
		defer func() {
			if cmd.Process != nil {
				_ = signalGroup(cmd.Process, syscall.SIGKILL) // the usual answer is that there is no such group any more
			}
		}()
	}
	cmd.WaitDelay = killGrace
	var out bytes.Buffer
	tail := &tailBuffer{limit: 16 << 10}
	cmd.Stdin = c.Stdin
	cmd.Stdout, cmd.Stderr = c.Stdout, c.Stderr
	if c.Stdout == nil {
		cmd.Stdout = &out
	}
	if c.Stderr == nil {
		cmd.Stderr = tail
	}
	if err := cmd.Run(); err != nil {
		return out.Bytes(), runError(ctx, c.Argv, err, tail, &out)
	}
	return out.Bytes(), nil
}

// without returns env without the variables in names.
func without(env, names []string) []string {
	return slices.DeleteFunc(env, func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(names, name)
	})
}

func runError(ctx context.Context, argv []string, err error, tail *tailBuffer, out *bytes.Buffer) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", filepath.Base(argv[0]), context.Cause(ctx))
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return fmt.Errorf("run %s: %w", filepath.Base(argv[0]), err)
	}
	text := tail.String()
	if strings.TrimSpace(text) == "" {
		text = out.String()
	}
	return &ExitError{Argv: argv, Status: exit.String(), Code: exit.ExitCode(), Output: text}
}

// tailBuffer keeps the last limit bytes written to it.
type tailBuffer struct {
	limit int
	buf   []byte
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if extra := len(t.buf) - t.limit; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(p), nil
}

func (t *tailBuffer) String() string { return string(t.buf) }

// LookPath finds a program on PATH, and in the system directories that an ordinary user's PATH often lacks.
func LookPath(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", errkind.New(api.KindUnavailable, "program %q is not installed", name)
}
