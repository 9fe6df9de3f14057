package client

import (
	"context"
	"errors"
	"io"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
)

// Conn is a connection into a guest. CloseWrite ends one direction and leaves the other open.
type Conn interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// VMDial connects to a TCP port or Unix socket in the guest, or to its SSH server. The connection ends with ctx.
func (c *Client) VMDial(ctx context.Context, p api.VMDial) (Conn, error) {
	s, err := c.open(ctx, api.MethodVMDial, p, nil)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// VMLogs returns a VM's console or VMM log as bytes. With Follow it ends with ctx or Close.
func (c *Client) VMLogs(ctx context.Context, p api.VMLogs) (io.ReadCloser, error) {
	s, err := c.open(ctx, api.MethodVMLogs, p, nil)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// VMLease holds an ephemeral VM: while the lease is open the daemon leaves the VM to the caller. It ends with Close, with
// ctx, or with the caller's process; the daemon then exports what changed in the VM's workspace and deletes the VM.
func (c *Client) VMLease(ctx context.Context, ref string) (io.Closer, error) {
	s, err := c.open(ctx, api.MethodVMLease, api.Ref{Ref: ref}, nil)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// VMCopyIn unpacks a tar in the guest. fill writes the tar; it gets an error early when the guest gives up.
func (c *Client) VMCopyIn(ctx context.Context, p api.VMCopyIn, fill func(io.Writer) error) error {
	return c.upload(ctx, api.MethodVMCopyIn, p, fill)
}

// VMCopyOut returns a tar of a guest path. Reading ends in io.EOF only when the copy was complete.
func (c *Client) VMCopyOut(ctx context.Context, p api.VMCopyOut) (io.ReadCloser, error) {
	s, err := c.open(ctx, api.MethodVMCopyOut, p, nil)
	if err != nil {
		return nil, err
	}
	return newDownload(s, "copy out of the guest"), nil
}

// WorkPrepare carries a workspace into a VM. fill writes it, as internal/workspace streams it.
func (c *Client) WorkPrepare(ctx context.Context, p api.WorkPrepare, fill func(io.Writer) error) error {
	return c.upload(ctx, api.MethodWorkPrepare, p, fill)
}

// WorkExport returns what changed in a VM's workspace, in the form that the reply names. Reading ends in io.EOF only when
// the export was complete.
func (c *Client) WorkExport(ctx context.Context, p api.WorkExport) (guestapi.WorkOutReply, io.ReadCloser, error) {
	var reply guestapi.WorkOutReply
	s, err := c.open(ctx, api.MethodWorkExport, p, &reply)
	if err != nil {
		return reply, nil, err
	}
	return reply, newDownload(s, "export the workspace"), nil
}

// OperationWatch calls each with every state of an operation until it ends, and returns the last one. An operation that
// failed is no error of the watch. An error of each ends the watch and is returned.
func (c *Client) OperationWatch(ctx context.Context, id string, each func(api.Operation) error) (api.Operation, error) {
	var op api.Operation
	s, err := c.open(ctx, api.MethodOperationWatch, api.OperationRef{ID: id}, nil)
	if err != nil {
		return op, err
	}
	defer s.Close()
	for {
		var next api.Operation // fresh: what one line leaves out must not show through from the line before
		if err := api.ReadLine(s.r, &next); err != nil {
			return op, s.failure("watch operation "+id, err)
		}
		op = next
		if each != nil {
			if err := each(op); err != nil {
				return op, err
			}
		}
		if op.State.Done() {
			return op, nil
		}
	}
}

// upload sends what fill writes as stdin frames and waits for the exit frame.
func (c *Client) upload(ctx context.Context, method string, params any, fill func(io.Writer) error) error {
	s, err := c.open(ctx, method, params, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	// The end is awaited while fill still writes: a guest that gives up stops reading, and fill would block for ever.
	end := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, newDownload(s, "copy into the guest"))
		if err != nil {
			s.Conn.Close()
		}
		end <- err
	}()
	fw := frame.NewWriter(s.Conn)
	fillErr := fill(fw.Stream(frame.Stdin))
	if fillErr == nil {
		fillErr = fw.Write(frame.StdinEOF, nil)
	}
	var endErr error
	select {
	case endErr = <-end: // the guest's word comes first: it is why the writing failed
	default:
		if fillErr != nil && ctx.Err() == nil && !cutShort(fillErr) {
			s.Conn.Close() // without stdin-eof: the guest drops what it has
			<-end
			return fillErr
		}
		endErr = <-end
	}
	if endErr != nil || cutShort(fillErr) {
		return endErr
	}
	return fillErr
}

// download is the stdout frames of a stream as an io.Reader that ends with the exit frame.
type download struct {
	s     *stream
	fr    *frame.Reader
	doing string
	rest  []byte // of the present frame
	err   error
}

func newDownload(s *stream, doing string) *download {
	return &download{s: s, fr: frame.NewReader(s.r), doing: doing}
}

// Close closes the connection.
func (d *download) Close() error { return d.s.Close() }

// Read returns the next bytes; the error is io.EOF after an exit frame without a failure.
func (d *download) Read(p []byte) (int, error) {
	for len(d.rest) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		d.next()
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

func (d *download) next() {
	t, payload, err := d.fr.Next()
	switch {
	case err != nil:
		d.err = d.s.failure(d.doing, err)
	case t == frame.Stdout:
		d.rest = payload
	case t == frame.Exit:
		d.err = io.EOF
		if st, err := decodeExit(payload); err != nil {
			d.err = err
		} else if st.Code != 0 || st.Error != "" {
			d.err = &api.Error{Kind: api.KindGuest, Message: d.doing + ": " + exitText(st), Hint: st.Hint}
		}
	}
}

// Events calls each with every event that p asks for, in order, until the stream ends, ctx ends, or each returns an error,
// which is returned. It returns the place to resume from, for p.After: what each has seen was before it. A connection that
// is cut is an error of kind unavailable; the daemon may have been restarted, and the place is still good.
func (c *Client) Events(ctx context.Context, p api.Events, each func(api.Event) error) (resume int64, err error) {
	var reply api.EventsReply
	s, err := c.open(ctx, api.MethodEvents, p, &reply)
	if err != nil {
		return p.After, err
	}
	defer s.Close()
	last := reply.Last
	if last == 0 {
		last = -1 // nothing has happened yet: 0 would skip what happens until the next call
	}
	for {
		var e api.Event
		err := api.ReadLine(s.r, &e)
		switch {
		case errors.Is(err, io.EOF) && !p.Follow:
			return last, nil
		case err != nil:
			return last, s.failure("follow events", err)
		}
		last = e.Seq
		if err := each(e); err != nil {
			return last, err
		}
	}
}
