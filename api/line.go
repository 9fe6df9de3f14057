package api

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxLine is the largest request or response line, in bytes, that either side accepts.
const MaxLine = 4 << 20

// WriteLine writes v as one JSON line in a single Write.
func WriteLine(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// ReadLine reads one line of at most [MaxLine] bytes from r and decodes it into v. It consumes nothing after the line.
func ReadLine(r *bufio.Reader, v any) error {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) && len(line) > 0 {
				return io.ErrUnexpectedEOF
			}
			return err
		}
		if len(line) > MaxLine {
			return &Error{Kind: KindInvalid, Message: fmt.Sprintf("line exceeds %d bytes", MaxLine)}
		}
	}
	return json.Unmarshal(line, v)
}

// StartCall opens a stream call on rw: it writes the request line, reads the response line and decodes the result into
// result unless that is nil. The bytes that follow are read from r, which must be the only reader of the connection. A failure that the peer reports is an
// [*Error].
func StartCall(w io.Writer, r *bufio.Reader, method string, params, result any) error {
	req := Request{Version: "2.0", ID: json.RawMessage("1"), Method: method}
	if params != nil {
		b, err := json.Marshal(params)
		if err != nil {
			return fmt.Errorf("encode %s: %w", method, err)
		}
		req.Params = b
	}
	if err := WriteLine(w, req); err != nil {
		return fmt.Errorf("call %s: %w", method, err)
	}
	// A [Response] whose result is decoded at once: a list may be long, and its JSON would be gone through twice.
	resp := struct {
		Result any            `json:"result"`
		Error  *ResponseError `json:"error"`
	}{Result: result}
	if err := ReadLine(r, &resp); err != nil {
		return fmt.Errorf("call %s: %w", method, err)
	}
	if resp.Error != nil {
		return resp.Error.Err()
	}
	return nil
}

// Reply answers req: with result when err is nil, with err otherwise. An err that is no [*Error] is sent as internal.
func Reply(w io.Writer, req Request, result any, err error) error {
	resp := Response{Version: "2.0", ID: req.ID}
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			e = &Error{Kind: KindInternal, Message: err.Error()}
		}
		resp.Error = NewResponseError(e)
		return WriteLine(w, resp)
	}
	b, err := json.Marshal(result)
	if err != nil {
		return err
	}
	resp.Result = b
	return WriteLine(w, resp)
}
