// Package errkind gives errors a kind and a hint: what sort of failure it is, and what the user can do about it.
//
// A layer that knows the kind makes the error with [New] or marks one with [Wrap]; layers above only add words with
// fmt.Errorf and %w. The edges translate by one table each: kind to JSON-RPC code in package api, kind to exit code in
// [ExitCode].
package errkind

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/banger-vm/banger/api"
)

// Kind is the sort of a failure; the kinds are package api's.
type Kind = api.ErrorKind

type kindError struct {
	kind Kind
	hint string
	err  error
}

func (e *kindError) Error() string { return e.err.Error() }
func (e *kindError) Unwrap() error { return e.err }

// New returns an error of kind k. The format is fmt.Errorf's, %w included.
func New(k Kind, format string, args ...any) error {
	return &kindError{kind: k, err: fmt.Errorf(format, args...)}
}

// Wrap gives err the kind k, over any kind it had. A nil err stays nil.
func Wrap(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &kindError{kind: k, err: err}
}

// WithHint adds a sentence that says what to do. The outermost hint is the one shown. A nil err stays nil.
func WithHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &kindError{hint: fmt.Sprintf(format, args...), err: err}
}

// Of returns err's kind: the outermost one it was given, else one derived from a context error, an errno or a wire error,
// else internal. Of(nil) is empty.
func Of(err error) Kind {
	if err == nil {
		return ""
	}
	if k := outermost(err, func(k *kindError) bool { return k.kind != "" }); k != nil {
		return k.kind
	}
	var wire *api.Error
	switch {
	case errors.As(err, &wire):
		return wire.Kind
	case errors.Is(err, context.Canceled):
		return api.KindCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return api.KindTimeout
	case errors.Is(err, fs.ErrPermission):
		return api.KindPermission
	case errors.Is(err, syscall.ENOSPC):
		return api.KindUnavailable
	}
	return api.KindInternal
}

// outermost returns the first mark in err's tree that is wanted: outer before inner, and in a join the first error first.
func outermost(err error, wanted func(*kindError) bool) *kindError {
	var k *kindError
	for errors.As(err, &k) {
		if wanted(k) {
			return k
		}
		err = k.err
	}
	return nil
}

// Is reports whether err is of kind k.
func Is(err error, k Kind) bool { return Of(err) == k }

// Hint returns the outermost hint of err, or the empty string.
func Hint(err error) string {
	if k := outermost(err, func(k *kindError) bool { return k.hint != "" }); k != nil {
		return k.hint
	}
	var wire *api.Error
	if errors.As(err, &wire) {
		return wire.Hint
	}
	if errors.Is(err, syscall.ENOSPC) {
		return "free some disk space, or move banger's state with BANGER_ROOT; `banger doctor` shows what is left"
	}
	return ""
}

// Wire returns err as it crosses an edge.
func Wire(err error) *api.Error {
	if err == nil {
		return nil
	}
	e := &api.Error{Kind: Of(err), Message: strings.TrimSpace(err.Error()), Hint: Hint(err)}
	var wire *api.Error
	if errors.As(err, &wire) {
		e.Operation = wire.Operation
	}
	return e
}

// exitCodes is the one table from kind to exit code of our own failures. Codes from sysexits.h where one fits.
var exitCodes = map[Kind]int{
	api.KindInvalid: 64, api.KindNotFound: 66, api.KindUnavailable: 69, api.KindInternal: 70, api.KindExists: 73,
	api.KindDataLoss: 74, api.KindBusy: 75, api.KindGuest: 76, api.KindPermission: 77, api.KindPrecondition: 78,
	api.KindTimeout: 124, api.KindCanceled: 130,
}

// ExitCode returns the exit status of a command that ends with err: 0 for nil, and 70 for a kind that is not known.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if c, ok := exitCodes[Of(err)]; ok {
		return c
	}
	return exitCodes[api.KindInternal]
}
