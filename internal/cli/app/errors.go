package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// ExitError ends the process with a guest command's own exit status and prints nothing.
type ExitError struct{ Code int }

func (e ExitError) Error() string { return fmt.Sprintf("exit status %d", e.Code) }

// Errors are failures of several references of one command. Each is printed; the first decides the exit code.
type Errors []error

func (e Errors) Error() string {
	words := make([]string, len(e))
	for i, err := range e {
		words[i] = err.Error()
	}
	return strings.Join(words, "; ")
}

// Unwrap gives the failures to errors.Is and errors.As.
func (e Errors) Unwrap() []error { return e }

// Usage returns an error of a command line that makes no sense, with a hint where to look.
func Usage(command, format string, args ...any) error {
	return errkind.WithHint(errkind.New(api.KindInvalid, format, args...), "see `%s --help`", command)
}

// Report prints err on standard error, each failure as a line "banger: …" and, where there is one, a line "hint: …". It
// returns the exit code of the process: `banger help exit-codes` is the table.
func (a *App) Report(err error) int {
	var exit ExitError
	var several Errors
	switch {
	case err == nil:
		return 0
	case errors.As(err, &several):
		for _, e := range several {
			a.reportOne(e)
		}
		return ExitCode(several[0])
	case errors.As(err, &exit), errors.Is(err, syscall.EPIPE):
	default:
		a.reportOne(err)
	}
	return ExitCode(err)
}

func (a *App) reportOne(err error) {
	red, dim, off := "", "", ""
	if a.Color(a.Err) {
		red, dim, off = "\x1b[31m", "\x1b[2m", "\x1b[0m"
	}
	msg := strings.TrimSpace(err.Error())
	if errors.Is(err, context.DeadlineExceeded) && msg == context.DeadlineExceeded.Error() {
		msg = "the time allowed for this has passed"
	}
	io.WriteString(a.Err, red+"banger: "+off+msg+"\n")
	if hint := errkind.Hint(err); hint != "" {
		io.WriteString(a.Err, dim+"hint: "+hint+off+"\n")
	}
}

// ExitCode returns the exit status for err: a guest command's own, 128 + n for a signal, 141 for a closed pipe as the
// shell gives it, else errkind's table.
func ExitCode(err error) int {
	var exit ExitError
	var sig SignalError
	switch {
	case errors.As(err, &exit):
		return exit.Code
	case errors.As(err, &sig):
		return 128 + int(sig.Signal)
	case errors.Is(err, syscall.EPIPE):
		return 128 + int(syscall.SIGPIPE)
	}
	return errkind.ExitCode(err)
}
