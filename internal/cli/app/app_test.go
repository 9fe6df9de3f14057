package app_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

func TestInterrupts(t *testing.T) {
	t.Run("the first signal ends the context, the second restores the terminal and ends the process", func(t *testing.T) {
		exited := make(chan int, 1)
		i := app.NewInterrupts(func(code int) { exited <- code })
		ctx, stop := i.Context(t.Context())
		defer stop()
		restored := false
		defer i.OnExit(func() { restored = true })()
		i.Send(syscall.SIGTERM)
		<-ctx.Done()
		var sig app.SignalError
		if err := context.Cause(ctx); !errors.As(err, &sig) || sig.Signal != syscall.SIGTERM || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		i.Send(syscall.SIGINT)
		if code := <-exited; code != 130 || !restored {
			t.Errorf("exit status %d, restored %v", code, restored)
		}
	})
	t.Run("redirected signals end nothing", func(t *testing.T) {
		i := app.NewInterrupts(func(int) { t.Error("ended") })
		ctx, stop := i.Context(t.Context())
		defer stop()
		got := make(chan syscall.Signal, 3)
		undo := i.Redirect(func(s syscall.Signal) { got <- s })
		for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGINT, syscall.SIGHUP} {
			i.Send(s)
			if g := <-got; g != s {
				t.Errorf("got %v", g)
			}
		}
		undo()
		if ctx.Err() != nil {
			t.Error("the context has ended")
		}
		i.Send(syscall.SIGINT)
		<-ctx.Done()
	})
}

func TestExitCode(t *testing.T) {
	wrapped := func(err error) error { return fmt.Errorf("do it: %w", err) }
	for want, err := range map[int]error{
		0: nil, 7: wrapped(app.ExitError{Code: 7}), 129: wrapped(app.SignalError{Signal: syscall.SIGHUP}), 141: wrapped(syscall.EPIPE),
		66: wrapped(&api.Error{Kind: api.KindNotFound}), 70: errors.New("?"), 124: context.DeadlineExceeded,
	} {
		if got := app.ExitCode(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

func TestReport(t *testing.T) {
	var out bytes.Buffer
	a := &app.App{Streams: app.Streams{Err: &out}, LookupEnv: func(string) (string, bool) { return "", false }}
	err := app.Errors{errkind.WithHint(errkind.New(api.KindBusy, "one"), "wait"), errors.New("two")}
	if code := a.Report(err); code != 75 || out.String() != "banger: one\nhint: wait\nbanger: two\n" {
		t.Errorf("exit status %d, %s", code, out.String())
	}
	out.Reset()
	if code := a.Report(app.ExitError{Code: 3}); code != 3 || out.Len() > 0 {
		t.Errorf("exit status %d, %s", code, out.String())
	}
}

func TestAmounts(t *testing.T) {
	for want, n := range map[string]int64{"": 0, "1": 1, "1023": 1023, "1K": 1024, "1.5G": 3 << 29, "2T": 2 << 40, "2048T": 2048 << 40} {
		if got := app.Size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	now := time.Now()
	for want, d := range map[string]time.Duration{"0s": -time.Hour, "59s": 59 * time.Second, "2m": 120 * time.Second, "47h": 47 * time.Hour, "2d": 48 * time.Hour} {
		if got := app.Age(now, now.Add(-d)); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	if app.Age(now, time.Time{}) != "" || app.Stamp(time.Time{}) != "" {
		t.Error("no time is something")
	}
}

func TestShellQuote(t *testing.T) {
	words := []string{"plain", "", "a b", `it's "q"`, "$HOME `x`", "new\nline", "*", "~", "-x", "#"}
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = app.ShellQuote(w)
	}
	// What is generated is executed: LESSONS 27.
	out, err := host.Output(t.Context(), host.Command{Argv: []string{"sh", "-c", `printf '%s\0' ` + strings.Join(quoted, " ")}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(words, strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")); diff != "" {
		t.Error(diff)
	}
}

func TestProgress(t *testing.T) {
	op := func(stages ...api.Stage) api.Operation {
		return api.Operation{State: api.OperationRunning, Stages: stages}
	}
	var out bytes.Buffer
	a := &app.App{Streams: app.Streams{Err: &out}, LookupEnv: func(string) (string, bool) { return "", false }}
	p := a.Progress(false)
	p.Update(op(api.Stage{Name: "a", TookMS: -1}))
	p.Update(op(api.Stage{Name: "a", TookMS: 10}, api.Stage{Name: "b", TookMS: -1}))
	p.Update(op(api.Stage{Name: "a", TookMS: 10}, api.Stage{Name: "b", TookMS: -1}))
	done := op(api.Stage{Name: "a", TookMS: 10}, api.Stage{Name: "b", TookMS: 1000})
	done.State = api.OperationSucceeded
	p.Update(done)
	p.Update(op(api.Stage{Name: "another", TookMS: 5})) // of the next operation
	p.Stage("of the client")
	p.Drop()
	p.End()
	p.End()
	want := "  a                                   0.01s\n  b                                   1.00s\n  another                             0.01s\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	out.Reset()
	p = a.Progress(true)
	p.Stage("x")
	p.Say("y")
	p.End()
	if out.Len() > 0 {
		t.Errorf("quiet, and yet %q", out.String())
	}
}
