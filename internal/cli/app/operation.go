package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/errkind"
)

// undoTime bounds what is done after an interrupt.
const undoTime = 60 * time.Second

// Undo returns a context for cleaning up after ctx has ended: it has ctx's values, no end of ctx's, and a deadline.
func Undo(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), undoTime)
}

// Operate begins an operation and awaits it, as [App.Await] says. The request that begins it is not cut by an interrupt: an operation
// whose id never arrived could not be cancelled.
func (a *App) Operate(ctx context.Context, c *client.Client, p *Progress, begin func(context.Context) (api.OperationRef, error)) (api.Ref, error) {
	uncut, cancel := Undo(ctx)
	op, err := begin(uncut)
	cancel()
	if err != nil {
		return api.Ref{}, err
	}
	return a.Await(ctx, c, op.ID, p)
}

// Await shows an operation's progress until it ends and returns what it made, which is empty unless it succeeded. When ctx
// ends first, the operation is cancelled and has been undone when Await returns ctx's cause; one that had succeeded all the
// same returns both, and the caller must undo it.
func (a *App) Await(ctx context.Context, c *client.Client, id string, p *Progress) (api.Ref, error) {
	op, err := c.OperationWatch(ctx, id, func(op api.Operation) error { p.Update(op); return nil })
	if cause := context.Cause(ctx); cause != nil {
		p.Drop()
		p.Say("cancelling …")
		return cancelOperation(ctx, c, id, cause)
	}
	if err != nil {
		p.Drop()
		return api.Ref{}, errkind.WithHint(err, "the operation may have gone on or been undone; see `banger operation show %s`", id)
	}
	if op.State != api.OperationSucceeded {
		p.Drop()
	}
	return made(op)
}

func cancelOperation(ctx context.Context, c *client.Client, id string, cause error) (api.Ref, error) {
	undo, cancel := Undo(ctx)
	defer cancel()
	err := c.OperationCancel(undo, id)
	final, getErr := c.OperationGet(undo, id)
	switch {
	case getErr == nil && final.State == api.OperationSucceeded:
		ref, err := made(final)
		return ref, errors.Join(cause, err)
	case getErr == nil && final.State.Done():
		return api.Ref{}, cause
	case err == nil:
		err = getErr
	}
	return api.Ref{}, errkind.WithHint(fmt.Errorf("%w; cancel operation %s: %w", cause, id, err), "see `banger operation show %s`", id)
}

// made turns the end of an operation into what it made or its error.
func made(op api.Operation) (api.Ref, error) {
	var ref api.Ref
	switch {
	case op.State == api.OperationSucceeded:
		if err := json.Unmarshal(op.Result, &ref); err != nil {
			return ref, fmt.Errorf("decode result of operation %s: %w", op.ID, err)
		}
		return ref, nil
	case op.Error != nil:
		return ref, op.Error
	case op.State == api.OperationCanceled:
		return ref, errkind.New(api.KindCanceled, "operation %s was cancelled", op.ID)
	case op.State == api.OperationInterrupted:
		return ref, errkind.WithHint(errkind.New(api.KindUnavailable, "operation %s was interrupted: the daemon ended", op.ID),
			"what it had made has been removed; run the command again")
	}
	return ref, fmt.Errorf("operation %s ended as %q", op.ID, op.State)
}
