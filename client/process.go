package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
)

// Stdio is what a guest command's standard streams are joined to. A nil In is an empty input, a nil Out or Err drops
// what comes.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// Process is a command that runs in a guest.
type Process struct {
	s    *stream
	fw   *frame.Writer
	pid  int
	out  [2]io.Writer // stdout, stderr
	room room
	done chan struct{}
}

// room is how much input may still be sent.
type room struct {
	mu   sync.Mutex // the command's answers add while the input takes
	left int
	more chan struct{} // has an element when left was raised
}

// take takes room for n bytes or fewer, and waits while there is none. It is 0 when done is closed first.
func (r *room) take(n int, done <-chan struct{}) int {
	for {
		r.mu.Lock()
		n := min(n, r.left)
		r.left -= n
		r.mu.Unlock()
		if n > 0 {
			return n
		}
		select {
		case <-r.more:
		case <-done:
			return 0
		}
	}
}

func (r *room) add(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left += n
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// VMExec starts a command in a guest. The command is hung up on when ctx ends or the program that called dies. The caller
// must call Wait, which moves the command's output: an io.Reader In is read by a goroutine of its own, and at most one
// Read of it is still pending when Wait returns.
func (c *Client) VMExec(ctx context.Context, p api.VMExec, std Stdio) (*Process, error) {
	p.Stdin = std.In != nil
	var started guestapi.ExecStarted
	s, err := c.open(ctx, api.MethodVMExec, p, &started)
	if err != nil {
		return nil, err
	}
	proc := &Process{s: s, fw: frame.NewWriter(s.Conn), pid: started.PID, done: make(chan struct{})}
	proc.room = room{left: started.StdinWindow, more: make(chan struct{}, 1)}
	if started.StdinWindow == 0 {
		proc.room.left = math.MaxInt
	}
	proc.out = [2]io.Writer{std.Out, std.Err}
	if std.In != nil {
		go proc.feed(std.In)
	}
	return proc, nil
}

// PID is the command's process id in the guest.
func (p *Process) PID() int { return p.pid }

// Resize tells the command's terminal its new size.
func (p *Process) Resize(size frame.WindowSize) error { return p.fw.WriteJSON(frame.Resize, size) }

// Signal sends the command a signal, named without SIG, such as "INT".
func (p *Process) Signal(name string) error { return p.fw.Write(frame.Signal, []byte(name)) }

// Close hangs up on the command.
func (p *Process) Close() error { return p.s.Close() }

// feed sends in as stdin frames. A failure to send shows in Wait, a failure to read is the end of the input.
func (p *Process) feed(in io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			n := p.room.take(len(rest), p.done)
			if n == 0 || p.fw.Write(frame.Stdin, rest[:n]) != nil {
				return
			}
			rest = rest[n:]
		}
		if err != nil {
			p.fw.Write(frame.StdinEOF, nil)
			return
		}
		select {
		case <-p.done:
			return
		default:
		}
	}
}

// Wait passes the command's output on until it ends and returns how it ended. It holds one frame at a time in memory,
// whatever the amount. The error is of the connection or of writing the output, never the command's own.
func (p *Process) Wait() (frame.ExitStatus, error) {
	defer p.s.Close()
	defer close(p.done)
	fr := frame.NewReader(p.s.r)
	for {
		t, payload, err := fr.Next()
		if err != nil {
			return frame.ExitStatus{}, p.s.failure("run the command", err)
		}
		switch t {
		case frame.Exit:
			return decodeExit(payload)
		case frame.StdinTaken:
			var n int
			if err := json.Unmarshal(payload, &n); err != nil {
				return frame.ExitStatus{}, fmt.Errorf("decode stdin-taken frame: %w", err)
			}
			p.room.add(n)
		case frame.Stdout, frame.Stderr:
			w := p.out[t-frame.Stdout]
			if w == nil {
				continue
			}
			if _, err := w.Write(payload); err != nil {
				return frame.ExitStatus{}, fmt.Errorf("write the command's output: %w", err)
			}
		}
	}
}

func decodeExit(payload []byte) (frame.ExitStatus, error) {
	var st frame.ExitStatus
	if err := json.Unmarshal(payload, &st); err != nil {
		return st, fmt.Errorf("decode exit frame: %w", err)
	}
	return st, nil
}

func exitText(st frame.ExitStatus) string {
	switch {
	case st.Error != "":
		return st.Error
	case st.Signal != "":
		return "ended by signal " + st.Signal
	}
	return fmt.Sprintf("exit status %d", st.Code)
}

// cutShort reports whether a write failed because the other end stopped reading.
func cutShort(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}
