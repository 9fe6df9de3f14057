package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Client is one connection to QEMU. [Client.Listen] must run for [Client.Do] to get its answers.
type Client struct {
	conn     io.ReadWriter
	listener Listener
	ready    chan struct{} // closed when QEMU takes commands
	ended    chan struct{} // closed when Listen returns

	mu      sync.Mutex // guards the rest: answers come while commands are given
	last    int
	pending map[int]chan message
}

// NewClient returns a client of the QEMU at the other end of conn, which tells l what QEMU says unasked.
func NewClient(conn io.ReadWriter, l Listener) *Client {
	return &Client{conn: conn, listener: l, ready: make(chan struct{}), ended: make(chan struct{}), pending: map[int]chan message{}}
}

// Listen waits for the greeting, asks for the machine's status, and lets events and answers come. It returns when the connection
// ends: nil when QEMU ended it after the greeting.
func (c *Client) Listen() error {
	defer close(c.ended)
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(nil, maxLine)
	greeted := false
	for lines.Scan() {
		var m message
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return fmt.Errorf("qmp: %w", err)
		}
		switch {
		case m.ID != 0:
			c.answer(m)
		case m.Error != nil:
			return fmt.Errorf("qmp: %s", m.Error.Desc)
		case m.Greeting != nil && !greeted:
			greeted = true
			// Before this command QEMU sends no events.
			if _, err := io.WriteString(c.conn, `{"execute":"qmp_capabilities"}`+"\n"+`{"execute":"query-status"}`+"\n"); err != nil {
				return fmt.Errorf("qmp: %w", err)
			}
			close(c.ready)
		case !greeted || m.Greeting != nil:
			return errors.New("qmp: the peer is not QEMU: no greeting, or two")
		case m.Name != "":
			c.listener.Event(m.Event)
		default:
			if status := m.status(); status != "" {
				c.listener.Status(status)
			}
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("qmp: %w", err)
	}
	if !greeted {
		return errors.New("qmp: the connection ended before a greeting")
	}
	return nil
}

func (c *Client) answer(m message) {
	c.mu.Lock()
	answer := c.pending[m.ID]
	delete(c.pending, m.ID)
	c.mu.Unlock()
	if answer != nil {
		answer <- m
	}
}

// Do executes a command and decodes what it returns into result, unless that is nil. An error of QEMU's is its description.
func (c *Client) Do(ctx context.Context, command string, arguments, result any) error {
	return c.do(ctx, command, arguments, result, nil)
}

// PassFile gives QEMU an open file, which commands know by name from then on (getfd in qapi/misc.json). The connection must be a
// Unix socket.
func (c *Client) PassFile(ctx context.Context, name string, f *os.File) error {
	return c.do(ctx, "getfd", map[string]string{"fdname": name}, nil, f)
}

func (c *Client) do(ctx context.Context, command string, arguments, result any, f *os.File) error {
	select {
	case <-c.ready:
	case <-c.ended:
		return fmt.Errorf("qmp %s: %w", command, net.ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("qmp %s: %w", command, ctx.Err())
	}
	answer := make(chan message, 1)
	c.mu.Lock()
	c.last++
	id := c.last
	c.pending[id] = answer
	c.mu.Unlock()
	if err := c.send(id, command, arguments, f); err != nil {
		return fmt.Errorf("qmp %s: %w", command, err)
	}
	select {
	case m := <-answer:
		if m.Error != nil {
			return fmt.Errorf("qmp %s: %s", command, m.Error.Desc)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(m.Return, result)
	case <-c.ended:
		return fmt.Errorf("qmp %s: %w", command, net.ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("qmp %s: %w", command, ctx.Err())
	}
}

// send writes a command in one piece, and with it f, if there is one.
func (c *Client) send(id int, command string, arguments any, f *os.File) error {
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int    `json:"id"`
	}{command, arguments, id})
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if f == nil {
		_, err = c.conn.Write(b)
		return err
	}
	conn, ok := c.conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("%T passes no files", c.conn)
	}
	_, _, err = conn.WriteMsgUnix(b, unix.UnixRights(int(f.Fd())), nil)
	return err
}
