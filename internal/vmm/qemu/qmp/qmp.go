// Package qmp speaks QEMU's machine protocol (docs/interop/qmp-spec.rst of QEMU): JSON objects, one a line, over a Unix
// socket; a greeting, then commands with their answers, and events at any time. It has the few commands that banger needs.
//
// A [Client] owns its connection. One goroutine reads; it calls the handler of events in their order and ends with the
// connection. Commands may be called concurrently; answers are matched by id. QEMU serves one client of a socket at a time:
// the next one waits for its greeting.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// maxLine bounds one message, in bytes. QEMU's answers to our commands are a few hundred.
const maxLine = 1 << 20

// Event is something that happened to the machine (qapi/run-state.json of QEMU).
type Event struct {
	Name string          `json:"event"` // such as SHUTDOWN
	Data json.RawMessage `json:"data"`
}

// The reasons of a SHUTDOWN event that banger tells apart (ShutdownCause in qapi/run-state.json).
const (
	ReasonGuestShutdown = "guest-shutdown" // the guest powered off
	ReasonGuestReset    = "guest-reset"    // the guest reset, and QEMU does not reboot
	ReasonGuestPanic    = "guest-panic"
	ReasonHostSignal    = "host-signal" // QEMU got SIGTERM, SIGINT or SIGHUP
	ReasonHostQuit      = "host-qmp-quit"
)

// Shutdown returns the reason of a SHUTDOWN event; ok is false for other events.
func (e Event) Shutdown() (reason string, ok bool) {
	if e.Name != "SHUTDOWN" {
		return "", false
	}
	var data struct {
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return "", false
	}
	return data.Reason, true
}

// Error is QEMU's refusal of a command.
type Error struct {
	Command string `json:"-"`
	Class   string `json:"class"` // QapiErrorClass, mostly GenericError
	Desc    string `json:"desc"`
}

func (e *Error) Error() string { return fmt.Sprintf("qmp %s: %s", e.Command, e.Desc) }

// Client is a connection to one QEMU.
type Client struct {
	conn net.Conn
	done chan struct{} // closed when the reader has ended

	writing chan struct{} // holds one token: commands are written whole

	mu      sync.Mutex // callers and the reader share what follows
	last    int64
	waiting map[int64]chan message
	err     error // why the connection ended, once done is closed
}

// message is anything that QEMU sends.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	Event
	ID     int64           `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *Error          `json:"error"`
}

// Open takes over conn: it waits for the greeting and enters command mode. From then on onEvent is called for each event,
// by one goroutine; it must not call the client. When Open fails, conn is closed.
func Open(ctx context.Context, conn net.Conn, onEvent func(Event)) (*Client, error) {
	c := &Client{conn: conn, done: make(chan struct{}), writing: make(chan struct{}, 1), waiting: map[int64]chan message{}}
	greeted := make(chan struct{})
	go c.read(greeted, onEvent)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	select {
	case <-greeted:
	case <-c.done:
		return nil, c.ended(ctx, "greeting")
	}
	if err := c.run(ctx, "qmp_capabilities", nil); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// read takes what QEMU sends, until the connection ends.
func (c *Client) read(greeted chan struct{}, onEvent func(Event)) {
	defer close(c.done)
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var m message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			c.fail(fmt.Errorf("not QMP: %w", err))
			return
		}
		switch {
		case m.Greeting != nil:
			if greeted == nil {
				c.fail(fmt.Errorf("not QMP: second greeting"))
				return
			}
			close(greeted)
			greeted = nil
		case m.Name != "":
			onEvent(m.Event)
		default:
			c.answer(m)
		}
	}
	c.fail(lines.Err())
}

// fail ends the connection; a nil err is the peer's.
func (c *Client) fail(err error) {
	if err == nil {
		err = fmt.Errorf("connection closed")
	}
	c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *Client) answer(m message) {
	c.mu.Lock()
	waiter := c.waiting[m.ID]
	delete(c.waiting, m.ID)
	c.mu.Unlock()
	if waiter != nil { // else its caller has given up
		waiter <- m
	}
}

// ended says why a wait ended with the connection.
func (c *Client) ended(ctx context.Context, what string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("qmp %s: %w", what, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return errkind.New(api.KindUnavailable, "qmp %s: %w", what, c.err)
}

// Done is closed when the connection has ended and the last event was handled.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection, and returns when the last event was handled.
func (c *Client) Close() {
	c.conn.Close()
	<-c.done
}

// writeTimeout bounds the write of a command, which fits the socket's buffer: QEMU that does not read is stuck.
const writeTimeout = 5 * time.Second

// run executes a command and decodes what it returns into out, unless that is nil.
func (c *Client) run(ctx context.Context, name string, out any) error {
	answer := make(chan message, 1)
	c.mu.Lock()
	c.last++
	id := c.last
	c.waiting[id] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, id)
	}()
	if err := c.write(ctx, name, id); err != nil {
		return err
	}
	var m message
	select {
	case m = <-answer:
	case <-ctx.Done():
		return fmt.Errorf("qmp %s: %w", name, ctx.Err())
	case <-c.done:
		select { // an answer may have come just before the end
		case m = <-answer:
		default:
			return c.ended(ctx, name)
		}
	}
	if m.Error != nil {
		m.Error.Command = name
		return m.Error
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(m.Return, out); err != nil {
		return fmt.Errorf("qmp %s: %w", name, err)
	}
	return nil
}

func (c *Client) write(ctx context.Context, name string, id int64) error {
	line, err := json.Marshal(struct {
		Execute string `json:"execute"`
		ID      int64  `json:"id"`
	}{name, id})
	if err != nil {
		return err
	}
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
	case <-ctx.Done():
		return fmt.Errorf("qmp %s: %w", name, ctx.Err())
	case <-c.done:
		return c.ended(ctx, name)
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return c.ended(ctx, name)
	}
	if _, err := c.conn.Write(append(line, '\n')); err != nil {
		c.fail(err) // half a command may be out: nothing can follow
		return errkind.New(api.KindUnavailable, "qmp %s: %w", name, err)
	}
	return nil
}

// Status returns the machine's run state, such as running, paused or shutdown (RunState in qapi/run-state.json).
func (c *Client) Status(ctx context.Context) (string, error) {
	var out struct {
		Status string `json:"status"`
	}
	err := c.run(ctx, "query-status", &out)
	return out.Status, err
}

// Stop stops all virtual CPUs.
func (c *Client) Stop(ctx context.Context) error { return c.run(ctx, "stop", nil) }

// Cont lets the virtual CPUs go on.
func (c *Client) Cont(ctx context.Context) error { return c.run(ctx, "cont", nil) }

// PowerDown presses the machine's power button. What the guest does then is its own affair.
func (c *Client) PowerDown(ctx context.Context) error { return c.run(ctx, "system_powerdown", nil) }

// Quit ends QEMU at once.
func (c *Client) Quit(ctx context.Context) error { return c.run(ctx, "quit", nil) }
