// Package frame is the framing of a running command or a copy: the bytes of several streams and a few events, each as
// one frame, on one connection. CLI, daemon and agent use it; the daemon only passes it on.
//
// A frame is a type byte, the payload's length as four bytes big endian, and the payload. Length is at most [MaxPayload].
//
//	to the command:    stdin, stdin-eof, resize, signal
//	from the command:  stdout, stderr, stdin-taken, exit (the last frame of a stream)
//	from a session:    record, instead of stdout and stderr; detached, instead of exit
//
// A connection that ends without an exit frame was cut. The end of a command's input is the frame stdin-eof and never
// the end of the connection, so the agent can tell "no more input" from "the client is gone" (it then hangs up on the
// command).
package frame

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// Type is the kind of a frame.
type Type byte

// The frame types. Zero is not one.
const (
	Stdin    Type = 1 // payload: bytes for the command's standard input
	StdinEOF Type = 2 // no payload: the input has ended
	Stdout   Type = 3 // payload: bytes of standard output, or of the terminal
	Stderr   Type = 4 // payload: bytes of standard error
	Resize   Type = 5 // payload: [WindowSize] as JSON
	Signal   Type = 6 // payload: a signal's name without SIG, such as "INT"
	Exit     Type = 7 // payload: [ExitStatus] as JSON
	// StdinTaken says that the command has taken so many more bytes of standard input; payload: their number as JSON.
	StdinTaken Type = 8
	Output     Type = 9  // payload: a [Record]
	Detached   Type = 10 // payload: why this client is no longer attached to a session that goes on; the last frame
)

func (t Type) String() string {
	names := [...]string{"invalid", "stdin", "stdin-eof", "stdout", "stderr", "resize", "signal", "exit", "stdin-taken", "output", "detached"}
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("frame type %d", byte(t))
}

// MaxPayload is the largest payload in bytes.
const MaxPayload = 64 << 10

// HeaderLen is how many bytes a frame has before its payload.
const HeaderLen = 5

// WindowSize is a terminal's size in characters.
type WindowSize struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// ExitStatus says how a command or a copy ended.
type ExitStatus struct {
	// Code is the exit status, 0 to 255; 128 + n when signal n ended the command; 127 when the command was not found,
	// 126 when it could not be executed (POSIX.1-2017 shell, 2.8.2).
	Code int `json:"code"`
	// Signal is the name of the signal that ended it, without SIG, else empty.
	Signal string `json:"signal,omitempty"`
	// Error says why it could not run or what went wrong in a copy, else empty.
	Error string `json:"error,omitempty"`
	// Hint says what to do about Error, where that is known.
	Hint string `json:"hint,omitempty"`
}

// Writer writes frames. Its methods may be called concurrently; each frame is one Write on the underlying writer.
type Writer struct {
	mu  sync.Mutex // frames from several streams must not interleave
	w   io.Writer
	buf []byte
}

// NewWriter returns a Writer on w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write sends p as frames of type t, split where it is longer than [MaxPayload]. An empty p is one empty frame.
func (w *Writer) Write(t Type, p []byte) error {
	for {
		n := min(len(p), MaxPayload)
		if err := w.writeOne(t, p[:n]); err != nil {
			return err
		}
		p = p[n:]
		if len(p) == 0 {
			return nil
		}
	}
}

func (w *Writer) writeOne(t Type, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf[:0], byte(t), 0, 0, 0, 0)
	binary.BigEndian.PutUint32(w.buf[1:], uint32(len(p)))
	w.buf = append(w.buf, p...)
	_, err := w.w.Write(w.buf)
	return err
}

// WriteJSON sends v as the payload of one frame of type t.
func (w *Writer) WriteJSON(t Type, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.writeOne(t, b)
}

// Stream returns an io.Writer whose writes become frames of type t.
func (w *Writer) Stream(t Type) io.Writer { return streamWriter{w, t} }

type streamWriter struct {
	w *Writer
	t Type
}

func (s streamWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.w.Write(s.t, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Reader reads frames. It is for one goroutine.
type Reader struct {
	r   io.Reader
	hdr [HeaderLen]byte
	buf []byte
}

// NewReader returns a Reader on r. It reads exactly the bytes of each frame and no more.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next returns the next frame. The payload is valid until the following call. The error is io.EOF at a clean end between
// two frames, and io.ErrUnexpectedEOF inside one.
func (r *Reader) Next() (Type, []byte, error) {
	if _, err := io.ReadFull(r.r, r.hdr[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(r.hdr[1:])
	if n > MaxPayload {
		return 0, nil, fmt.Errorf("frame of %d bytes exceeds %d", n, MaxPayload)
	}
	if cap(r.buf) < int(n) {
		r.buf = make([]byte, MaxPayload)
	}
	p := r.buf[:n]
	if _, err := io.ReadFull(r.r, p); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return Type(r.hdr[0]), p, nil
}
