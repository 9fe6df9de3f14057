package app

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// SignalError is the cause of a context that a signal ended.
type SignalError struct{ Signal syscall.Signal }

func (e SignalError) Error() string {
	return fmt.Sprintf("interrupted by %s", unix.SignalName(e.Signal))
}

// Is makes a SignalError count as a cancelled context.
func (e SignalError) Is(target error) bool { return target == context.Canceled }

// Interrupts decides what a signal to this process does. See the package comment.
type Interrupts struct {
	c    chan os.Signal
	exit func(code int)

	mu       sync.Mutex // signals come while commands redirect them
	redirect func(syscall.Signal)
	restore  func()
	seen     int
}

// NewInterrupts returns an Interrupts that ends the process by exit, which is os.Exit but in tests. It catches nothing until
// Notify.
func NewInterrupts(exit func(code int)) *Interrupts {
	return &Interrupts{c: make(chan os.Signal, 8), exit: exit}
}

// Notify begins to catch signals. SIGPIPE is caught and ignored: a write to a pipe that nobody reads is an ordinary error
// then, and `vm run --rm` can still carry the work out of the guest. Programs that are executed get the default back.
func (i *Interrupts) Notify() {
	signal.Notify(i.c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// Send is for tests: it is as if the process had got the signal.
func (i *Interrupts) Send(s syscall.Signal) { i.c <- s }

// Context returns a context that the first signal ends, and a function that stops listening.
func (i *Interrupts) Context(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-i.c:
				i.deliver(s.(syscall.Signal), cancel)
			case <-done:
				return
			}
		}
	}()
	return ctx, func() { close(done); cancel(nil) }
}

func (i *Interrupts) deliver(s syscall.Signal, cancel context.CancelCauseFunc) {
	i.mu.Lock()
	redirect, restore := i.redirect, i.restore
	if redirect == nil {
		i.seen++
	}
	second := i.seen > 1
	i.mu.Unlock()
	switch {
	case redirect != nil:
		redirect(s)
	case second:
		if restore != nil {
			restore()
		}
		i.exit(128 + int(s))
	default:
		cancel(SignalError{s})
	}
}

// Redirect hands signals to f instead, until the returned function is called.
func (i *Interrupts) Redirect(f func(syscall.Signal)) (undo func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.redirect = f
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.redirect = nil
	}
}

// OnExit has f called before a second signal ends the process, until the returned function is called.
func (i *Interrupts) OnExit(f func()) (undo func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.restore = f
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.restore = nil
	}
}
