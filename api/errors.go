package api

import (
	"encoding/json"
	"fmt"
)

// ErrorKind says what sort of failure an [Error] is. Exit codes and JSON-RPC codes are derived from it.
type ErrorKind string

// The error kinds. A peer that meets an unknown one treats it as [KindInternal].
const (
	KindInvalid      ErrorKind = "invalid"      // the request itself is wrong
	KindNotFound     ErrorKind = "not-found"    // what it names does not exist
	KindExists       ErrorKind = "exists"       // a name or resource is already taken
	KindBusy         ErrorKind = "busy"         // something else holds it now; try again
	KindPrecondition ErrorKind = "precondition" // the state does not allow it
	KindPermission   ErrorKind = "permission"   // the caller may not do it
	KindUnavailable  ErrorKind = "unavailable"  // a peer, program or device is missing or gone
	KindTimeout      ErrorKind = "timeout"      // a deadline passed
	KindCanceled     ErrorKind = "canceled"     // the caller gave up
	KindGuest        ErrorKind = "guest"        // the guest failed: panic, no answer, crash
	KindInternal     ErrorKind = "internal"     // a defect of ours, or a host fault without a better kind
	KindDataLoss     ErrorKind = "data-loss"    // stored data is damaged, or going on would lose some
)

// Error is a failure as it crosses the wire.
type Error struct {
	Kind      ErrorKind `json:"kind"`                // an unknown one means internal
	Message   string    `json:"message"`             // what failed, for people
	Hint      string    `json:"hint,omitempty"`      // what the user can do, a sentence
	Operation string    `json:"operation,omitempty"` // id of the operation concerned
}

func (e *Error) Error() string { return e.Message }

// codes is the one table between kinds and JSON-RPC codes. Codes are outside the range that JSON-RPC 2.0 reserves.
var codes = map[ErrorKind]int{
	KindInvalid: 1, KindNotFound: 2, KindExists: 3, KindBusy: 4, KindPrecondition: 5, KindPermission: 6,
	KindUnavailable: 7, KindTimeout: 8, KindCanceled: 9, KindGuest: 10, KindInternal: 11, KindDataLoss: 12,
}

// Code returns the JSON-RPC error code of k.
func (k ErrorKind) Code() int {
	if c, ok := codes[k]; ok {
		return c
	}
	return codes[KindInternal]
}

// KindOfCode returns the kind whose JSON-RPC code is c, and KindInvalid for the reserved codes that mean a malformed
// request (-32700, -32600 to -32602).
func KindOfCode(c int) ErrorKind {
	switch c {
	case -32700, -32600, -32601, -32602:
		return KindInvalid
	}
	for k, code := range codes {
		if code == c {
			return k
		}
	}
	return KindInternal
}

// Request is a JSON-RPC 2.0 request as one line.
type Request struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params,omitempty"`
}

// Response is a JSON-RPC 2.0 response as one line. Exactly one of Result and Error is set.
type Response struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *ResponseError  `json:"error,omitempty"`
}

// ResponseError is JSON-RPC 2.0's error object; Data is ours.
type ResponseError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Data    *Error `json:"data,omitempty"`
}

// Err returns the failure as an [*Error], built from the code when the peer sent no data.
func (e *ResponseError) Err() error {
	if e.Data != nil {
		return e.Data
	}
	return &Error{Kind: KindOfCode(e.Code), Message: fmt.Sprintf("%s (code %d)", e.Message, e.Code)}
}

// NewResponseError returns the wire form of e.
func NewResponseError(e *Error) *ResponseError {
	return &ResponseError{Code: e.Kind.Code(), Message: e.Message, Data: e}
}
