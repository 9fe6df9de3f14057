// Package fakedaemon is a scripted daemon for tests of the client and the command line: it speaks package api's lines on a
// real Unix socket, answers with what the test has scripted, and remembers what it was asked.
package fakedaemon

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/internal/errkind"
)

// NoPID is the process id that the fake reports: one that no process has (above the kernel's PID_MAX_LIMIT, 2^22).
const NoPID = 1<<22 + 1

// Handler answers one call. It must call Reply or Fail once; after Reply a stream call goes on with the connection.
type Handler func(c *Call)

// Daemon is the scripted daemon.
type Daemon struct {
	Root   string // BANGER_ROOT
	Socket string
	t      testing.TB

	mu       sync.Mutex // calls are served concurrently
	handlers map[string]Handler
	calls    []string
	params   map[string][]json.RawMessage
	wg       sync.WaitGroup
}

// Start starts a daemon for the length of the test. It answers daemon.ping; everything else must be scripted with On.
func Start(t testing.TB) *Daemon {
	t.Helper()
	// Not t.TempDir: a Unix socket's path is limited to 107 bytes.
	root, err := os.MkdirTemp("", "bng")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	d := Serve(t, root)
	return d
}

// Serve is Start on a root of the caller's.
func Serve(t testing.TB, root string) *Daemon {
	t.Helper()
	d := &Daemon{Root: root, Socket: filepath.Join(root, "run", "bangerd.sock"), t: t,
		handlers: map[string]Handler{}, params: map[string][]json.RawMessage{}}
	d.Result(api.MethodPing, api.Ping{Protocol: api.ProtocolVersion, Version: "v1.2.3", PID: NoPID})
	if err := os.MkdirAll(filepath.Dir(d.Socket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	d.wg.Add(1)
	go d.accept(l)
	t.Cleanup(func() { l.Close(); d.wg.Wait() })
	return d
}

// On scripts the answer to a method, in place of an earlier one.
func (d *Daemon) On(method string, h Handler) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.handlers[method] = h
}

// Result scripts a plain answer.
func (d *Daemon) Result(method string, result any) { d.On(method, func(c *Call) { c.Reply(result) }) }

// Error scripts a failure.
func (d *Daemon) Error(method string, err error) { d.On(method, func(c *Call) { c.Fail(err) }) }

// Calls returns the methods that were called, in the order of their requests, without daemon.ping.
func (d *Daemon) Calls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

// Params decodes the parameters of the last call of method into v. A method that was not called fails the test.
func (d *Daemon) Params(method string, v any) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.params[method]
	if len(all) == 0 {
		d.t.Fatalf("%s was not called; these were: %q", method, d.calls)
	}
	if err := json.Unmarshal(all[len(all)-1], v); err != nil {
		d.t.Fatal(err)
	}
}

func (d *Daemon) accept(l net.Listener) {
	defer d.wg.Done()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		d.wg.Add(1)
		go func() {
			defer d.wg.Done()
			defer conn.Close()
			d.serve(conn.(*net.UnixConn))
		}()
	}
}

func (d *Daemon) serve(conn *net.UnixConn) {
	c := &Call{UnixConn: conn, d: d, r: bufio.NewReader(conn)}
	if api.ReadLine(c.r, &c.req) != nil {
		return
	}
	d.mu.Lock()
	h, ok := d.handlers[c.req.Method]
	if c.req.Method != api.MethodPing {
		d.calls = append(d.calls, c.req.Method)
	}
	d.params[c.req.Method] = append(d.params[c.req.Method], c.req.Params)
	d.mu.Unlock()
	if !ok {
		c.Fail(errkind.New(api.KindInvalid, "the test has scripted no %s", c.req.Method))
		return
	}
	h(c)
}

// Call is one request and its connection. Reads are what follows the request line.
type Call struct {
	*net.UnixConn
	d   *Daemon
	r   *bufio.Reader
	req api.Request
}

// Read reads what the client sends after the request.
func (c *Call) Read(p []byte) (int, error) { return c.r.Read(p) }

// Decode decodes the request's parameters.
func (c *Call) Decode(v any) {
	if err := json.Unmarshal(c.req.Params, v); err != nil {
		c.d.t.Errorf("parameters of %s: %v", c.req.Method, err)
	}
}

// Reply sends the result line.
func (c *Call) Reply(result any) { api.Reply(c.UnixConn, c.req, result, nil) }

// Fail sends an error line.
func (c *Call) Fail(err error) { api.Reply(c.UnixConn, c.req, nil, errkind.Wire(err)) }

// Line sends one more JSON line.
func (c *Call) Line(v any) { api.WriteLine(c.UnixConn, v) }

// Frames returns a writer of frames.
func (c *Call) Frames() *frame.Writer { return frame.NewWriter(c.UnixConn) }

// Exit sends the exit frame.
func (c *Call) Exit(st frame.ExitStatus) { c.Frames().WriteJSON(frame.Exit, st) }

// Stdin reads stdin frames to their end and returns the bytes, and whether the end was stdin-eof. Other frames are given to
// other, if that is not nil.
func (c *Call) Stdin(other func(frame.Type, []byte)) (data []byte, whole bool) {
	fr := frame.NewReader(c.r)
	for {
		t, p, err := fr.Next()
		switch {
		case err != nil:
			return data, false
		case t == frame.Stdin:
			data = append(data, p...)
		case t == frame.StdinEOF:
			return data, true
		case other != nil:
			other(t, p)
		}
	}
}

// HangUp waits until the client has closed the connection.
func (c *Call) HangUp() {
	buf := make([]byte, 4096)
	for {
		if _, err := c.r.Read(buf); err != nil {
			return
		}
	}
}
