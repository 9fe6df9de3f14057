package proc

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// After a process has ended, everything it wrote is in its pipes. A child it left behind may hold them open, silent or
// writing for ever, so what still comes is read until its end, but at most for drainWait of waiting in all, not counting
// the time the receiver takes, and at most drainBytes: enough for a `tee` behind the process to finish.
const (
	drainWait  = 500 * time.Millisecond
	drainBytes = 1 << 20
)

// copySize is that of a pipe on Linux, and of the largest frame.
const copySize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// stdio is the agent's side of a process's standard streams.
type stdio struct {
	childEnds []*os.File
	tty       bool
	stdin     *os.File  // our end of the pipe or terminal; nil without one
	source    io.Reader // is copied to stdin; nil when stdin is written by Process.Input
	outputs   []*output
	copying   sync.WaitGroup
}

// openStdio makes the three descriptors of the child, which closeChildEnds or their owners close.
func (s *Supervisor) openStdio(spec Spec) (*stdio, []uintptr, error) {
	std := &stdio{tty: spec.TTY != nil}
	var ends [3]*os.File
	var err error
	if std.tty {
		err = std.terminal(spec, &ends)
	} else if ends[0], err = std.input(spec, s.devNull); err == nil {
		if ends[1], err = std.output(spec.Stdout, s.devNull); err == nil {
			ends[2], err = std.output(spec.Stderr, s.devNull)
		}
	}
	if err != nil {
		std.closeChildEnds()
		std.abandon()
		return nil, nil, err
	}
	return std, []uintptr{ends[0].Fd(), ends[1].Fd(), ends[2].Fd()}, nil
}

func (s *stdio) terminal(spec Spec, ends *[3]*os.File) error {
	child, ours, err := openTerminal(*spec.TTY, spec.User)
	if err != nil {
		return err
	}
	s.childEnds = append(s.childEnds, child)
	s.stdin = ours
	dst := spec.Stdout
	if dst == nil {
		dst = io.Discard
	}
	s.outputs = append(s.outputs, &output{src: ours, dst: dst, tty: true})
	*ends = [3]*os.File{child, child, child}
	return nil
}

func (s *stdio) input(spec Spec, devNull func() (*os.File, error)) (*os.File, error) {
	if f, ok := spec.Stdin.(*os.File); ok {
		return f, nil
	}
	if spec.Stdin == nil && !spec.OpenStdin {
		return devNull()
	}
	child, ours, err := pipe(0)
	if err != nil {
		return nil, err
	}
	s.childEnds = append(s.childEnds, child)
	s.stdin, s.source = ours, spec.Stdin
	return child, nil
}

func (s *stdio) output(w io.Writer, devNull func() (*os.File, error)) (*os.File, error) {
	switch w := w.(type) {
	case nil:
		return devNull()
	case *os.File:
		return w, nil
	}
	child, ours, err := pipe(1)
	if err != nil {
		return nil, err
	}
	s.childEnds = append(s.childEnds, child)
	s.outputs = append(s.outputs, &output{src: ours, dst: w})
	return child, nil
}

// pipe returns a pipe whose end number child (0 reads, 1 writes) blocks, as programs expect, and whose other end does
// not, so that the runtime can wait for it without a thread. os.Pipe would need four more system calls for that.
func pipe(child int) (theirs, ours *os.File, err error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	if err := syscall.SetNonblock(fds[1-child], true); err != nil {
		syscall.Close(fds[0])
		syscall.Close(fds[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[child]), "pipe"), os.NewFile(uintptr(fds[1-child]), "pipe"), nil
}

func (s *stdio) closeChildEnds() {
	for _, f := range s.childEnds {
		f.Close()
	}
}

// abandon closes our ends, for a process that was never started.
func (s *stdio) abandon() {
	if s.stdin != nil {
		s.stdin.Close()
	}
	for _, o := range s.outputs {
		o.src.Close()
	}
}

// start begins to copy.
func (s *stdio) start() {
	for _, o := range s.outputs {
		s.copying.Go(o.run)
	}
	if s.source != nil {
		go func() {
			_, _ = io.Copy(s.stdin, s.source) // a process that does not read its input is no error
			s.stdin.Close()
		}()
	}
}

// ended says that the process has ended: nobody reads the input any more, and the outputs have a limit from now on.
func (s *stdio) ended() {
	if s.stdin != nil && !s.tty { // a terminal still has output
		s.stdin.Close()
	}
	for _, o := range s.outputs {
		o.ended.Store(true)
		_ = o.src.SetReadDeadline(time.Unix(1, 0)) // wakes run; fails when the output has ended as well
	}
}

func (s *stdio) wait() { s.copying.Wait() }

// output carries one stream from a process to its receiver.
type output struct {
	src   *os.File
	dst   io.Writer
	tty   bool        // src is our end of a terminal
	ended atomic.Bool // the process has ended
}

// run copies until the stream ends. When the receiver fails, it closes the pipe, and the process gets SIGPIPE.
func (o *output) run() {
	defer o.src.Close()
	buf := buffers.Get().(*[copySize]byte)
	defer buffers.Put(buf)
	for !o.ended.Load() {
		n, err := o.read(buf[:])
		if n > 0 {
			if _, err := o.dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
	o.drain(buf)
}

// read reads from a process that lives. A terminal whose other end nobody has open fails with EIO, and that is no end: the
// process may be on its way out, where closing our end would kill it with SIGHUP, or open /dev/tty again. What it does
// next wakes the poller, and so does its end.
func (o *output) read(buf []byte) (n int, err error) {
	if !o.tty {
		return o.src.Read(buf)
	}
	conn, err := o.src.SyscallConn()
	if err != nil {
		return 0, err
	}
	waitErr := conn.Read(func(fd uintptr) bool {
		for n, err = unix.Read(int(fd), buf); err == unix.EINTR; n, err = unix.Read(int(fd), buf) {
		}
		return err != unix.EAGAIN && err != unix.EIO
	})
	switch {
	case waitErr != nil:
		return 0, waitErr
	case err != nil:
		return 0, err
	case n == 0: // the terminal was hung up by force: vhangup(2)
		return 0, io.EOF
	}
	return n, nil
}

// drain copies what still comes after the process has ended.
func (o *output) drain(buf *[copySize]byte) {
	for wait, left := drainWait, drainBytes; wait > 0 && left > 0; {
		begin := time.Now()
		_ = o.src.SetReadDeadline(begin.Add(wait)) // a pipe has deadlines
		n, err := o.src.Read(buf[:])
		wait -= time.Since(begin)
		left -= n
		if n > 0 {
			if _, err := o.dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) { // a late wake-up of run's is no reason to stop
			return
		}
	}
}
