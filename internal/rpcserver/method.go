package rpcserver

import (
	"bytes"
	"context"
	"encoding/json"
	"reflect"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Class is what a caller must be allowed to do to call a method.
type Class int

// The permission classes, each including the ones before it. The zero value is invalid on purpose.
const (
	_ Class = iota
	Read
	Write
	Admin
)

func (c Class) String() string { return [...]string{"invalid", "read", "write", "admin"}[c] }

// Payload says what a stream method's connection carries after the response line.
type Payload string

// The payloads.
const (
	NoStream Payload = ""       // an ordinary call
	Frames   Payload = "frames" // package api/frame
	Bytes    Payload = "bytes"  // raw, with half-close
	Lines    Payload = "lines"  // JSON objects, one a line
)

// Method is one row of the table.
type Method struct {
	Name    string
	Class   Class
	Doc     string // one sentence
	Params  reflect.Type
	Result  reflect.Type
	Payload Payload
	Line    reflect.Type // what each line is, of the payload Lines

	call   func(ctx context.Context, params json.RawMessage) (any, error)
	stream func(ctx context.Context, params json.RawMessage, c *Conn) error
}

// Call makes a row for an ordinary method.
func Call[P, R any](class Class, name, doc string, fn func(context.Context, P) (R, error)) Method {
	return Method{
		Name: name, Class: class, Doc: doc, Params: reflect.TypeFor[P](), Result: reflect.TypeFor[R](),
		call: func(ctx context.Context, raw json.RawMessage) (any, error) {
			var p P
			if err := decode(name, raw, &p); err != nil {
				return nil, err
			}
			return fn(ctx, p)
		},
	}
}

// Stream makes a row for a stream method. fn answers with [Conn.Accept] once it can serve the request; what it returns
// before that is the answer, what it returns after that goes to the log.
func Stream[P, R any](class Class, payload Payload, name, doc string, fn func(context.Context, P, *Conn) error) Method {
	return Method{
		Name: name, Class: class, Doc: doc, Params: reflect.TypeFor[P](), Result: reflect.TypeFor[R](), Payload: payload,
		stream: func(ctx context.Context, raw json.RawMessage, c *Conn) error {
			var p P
			if err := decode(name, raw, &p); err != nil {
				return err
			}
			return fn(ctx, p, c)
		},
	}
}

// each says what the lines of a stream are.
func (m Method) each(line reflect.Type) Method {
	m.Line = line
	return m
}

// decode is strict: a field that the contract does not have is an error and not silently dropped.
func decode(method string, raw json.RawMessage, v any) error {
	if len(raw) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return errkind.New(api.KindInvalid, "parameters of %s: %w", method, err)
	}
	return nil
}
