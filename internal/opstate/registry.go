// Package opstate owns long-running requests while they run. A service tells how far it is through a [Reporter]; a
// [Registry] runs the work apart from the request that asked for it, and lets any number of clients look, wait, watch and
// cancel.
//
// # Life of an operation
//
// [Registry.Begin] stores the operation as running and starts its function in a goroutine. The function's context is
// nobody's request: it ends by [Registry.Cancel] or [Registry.Close] only. When the function has returned, the operation is
// stored with its result or error, and leaves memory; from then on it is answered from the store. So what is in memory runs,
// and an operation that is stored as running when the daemon starts was interrupted.
//
// # Locks
//
// Registry.mu, then Op.mu. Both are leaves: nothing is stored, called back or waited for under them.
package opstate

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
)

// Persister keeps operations. An operation is stored when it begins, when it gets its subject, and when it ends; progress
// is not stored.
type Persister interface {
	PutOperation(ctx context.Context, op api.Operation) error
	// GetOperation resolves an id or a prefix that only one id has; kinds not-found and invalid.
	GetOperation(ctx context.Context, ref string) (api.Operation, error)
	// ListOperations returns at most limit operations, newest first; 0 is all.
	ListOperations(ctx context.Context, limit int) ([]api.Operation, error)
}

// Observer is told of every operation that has ended. Its method must not block.
type Observer interface {
	OperationEnded(op api.Operation)
}

// Func is the work of an operation. Its result is stored as JSON; when ctx has ended, its error means that it was
// canceled. It must not wait for its own operation.
type Func func(ctx context.Context, op *Op) (any, error)

// Registry runs operations. Its methods may be called concurrently.
type Registry struct {
	store     Persister
	log       *slog.Logger
	observers []Observer

	mu      sync.Mutex // guards what follows, against Begin, the end of operations and Close
	running map[string]*Op
	closed  bool
}

// New returns a registry that keeps its operations in p, and tells observers of their ends.
func New(p Persister, log *slog.Logger, observers ...Observer) *Registry {
	return &Registry{store: p, log: log, observers: observers, running: map[string]*Op{}}
}

// errStopping is the cause of a function's ended context when the daemon stops.
var errStopping = errkind.WithHint(errkind.New(api.KindUnavailable, "the daemon is stopping"),
	"start it with `banger daemon start` and run the command again")

// errCanceled is the cause when somebody called Cancel.
var errCanceled = errkind.New(api.KindCanceled, "canceled")

// Begin starts fn as an operation of the given kind (the method's name) on subject (a name, possibly empty), and returns it
// as it is at its start. After Close fn is not called, and the operation is interrupted from the start.
func (r *Registry) Begin(kind, subject string, fn Func) api.Operation {
	ctx, cancel := context.WithCancelCause(context.Background())
	o := &Op{registry: r, cancel: cancel, changed: make(chan struct{}), ended: make(chan struct{}), op: api.Operation{
		ID: string(banger.NewID[banger.OperationID]()), Kind: kind, Subject: subject,
		State: api.OperationRunning, Created: time.Now().UTC()}}
	begun := o.snapshot()
	r.mu.Lock()
	closed := r.closed
	if !closed {
		r.running[begun.ID] = o
	}
	r.mu.Unlock()
	if closed {
		cancel(errStopping)
		o.finish(ctx, nil, errStopping)
		end := o.snapshot()
		r.tell(end)
		r.persist(end)
		return end
	}
	r.persist(begun)
	go r.run(ctx, o, fn)
	return begun
}

func (r *Registry) run(ctx context.Context, o *Op, fn Func) {
	result, err := r.call(ctx, o, fn)
	o.finish(ctx, result, err)
	end := o.snapshot()
	level := slog.LevelInfo
	if end.State == api.OperationFailed {
		level = slog.LevelWarn
	}
	r.log.Log(ctx, level, "operation ended", "op", end.ID, "kind", end.Kind, "subject", end.Subject,
		"state", end.State, "took", end.Ended.Sub(end.Created), "err", err)
	r.tell(end)
	if r.persist(end) {
		r.mu.Lock()
		delete(r.running, end.ID)
		r.mu.Unlock()
	}
	close(o.ended)
	o.cancel(nil)
}

func (r *Registry) tell(op api.Operation) {
	for _, o := range r.observers {
		o.OperationEnded(op)
	}
}

// call runs fn and makes a panic an error: one request's defect must not end the daemon and everybody's operations.
func (r *Registry) call(ctx context.Context, o *Op, fn Func) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("operation panicked", "op", o.ID(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errkind.WithHint(errkind.New(api.KindInternal, "panic: %v", p),
				"this is a defect of banger; `banger daemon logs` shows where")
		}
	}()
	return fn(ctx, o)
}

// persist stores op and reports whether it did. An operation that cannot be stored runs all the same, and stays in memory.
func (r *Registry) persist(op api.Operation) bool {
	err := r.store.PutOperation(context.Background(), op)
	if err != nil {
		r.log.Error("operation not stored", "op", op.ID, "state", op.State, "err", err)
	}
	return err == nil
}

// find returns the operation that ref means: one in memory, or else as it was stored.
func (r *Registry) find(ctx context.Context, ref string) (*Op, api.Operation, error) {
	if o := r.live(ref); o != nil {
		return o, api.Operation{}, nil
	}
	op, err := r.store.GetOperation(ctx, ref)
	if err != nil {
		return nil, api.Operation{}, err
	}
	if o := r.live(op.ID); o != nil {
		return o, api.Operation{}, nil
	}
	if !op.State.Done() { // it ended between the two looks
		op, err = r.store.GetOperation(ctx, op.ID)
	}
	return nil, op, err
}

func (r *Registry) live(id string) *Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running[id]
}

// Get returns the operation that ref means: an id, or a prefix that only one id has. Kinds: not-found, invalid.
func (r *Registry) Get(ref string) (api.Operation, error) {
	o, op, err := r.find(context.Background(), ref)
	if o != nil {
		return o.snapshot(), nil
	}
	return op, err
}

// listed bounds List; older operations are found by id until the store forgets them.
const listed = 200

// List returns the operations, newest first: all that run, and the latest that have ended. When the store cannot be read,
// which is logged, they are those that run.
func (r *Registry) List() []api.Operation {
	running := r.all() // before the store is read, so that one that ends now is in either
	ops, err := r.store.ListOperations(context.Background(), listed)
	if err != nil {
		r.log.Error("operations not read", "err", err)
	}
	ops = slices.DeleteFunc(ops, func(op api.Operation) bool {
		return slices.ContainsFunc(running, func(o *Op) bool { return o.ID() == op.ID })
	})
	for _, o := range running {
		ops = append(ops, o.snapshot())
	}
	slices.SortStableFunc(ops, func(a, b api.Operation) int { return b.Created.Compare(a.Created) })
	return ops
}

// Busy reports whether an operation runs.
func (r *Registry) Busy() bool { return len(r.all()) > 0 }

// all returns the operations in memory, in no order.
func (r *Registry) all() []*Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.running))
}

// Cancel ends the operation's context and waits until it has ended, as long as ctx allows. One that has ended is no error.
func (r *Registry) Cancel(ctx context.Context, ref string) error {
	o, _, err := r.find(ctx, ref)
	if o == nil {
		return err
	}
	o.cancel(errCanceled)
	return o.wait(ctx)
}

// Wait returns the operation once it has ended. How it ended is in it; an error means that it could not be waited for.
func (r *Registry) Wait(ctx context.Context, ref string) (api.Operation, error) {
	o, op, err := r.find(ctx, ref)
	if o == nil {
		return op, err
	}
	if err := o.wait(ctx); err != nil {
		return api.Operation{}, err
	}
	return o.snapshot(), nil
}

// Watch calls fn with the operation as it is, after each change, and a last time when it has ended; then it returns nil.
// Changes that happen while fn runs, and progress that follows other progress within a tenth of a second, come as one. An
// error from fn ends the watch and is returned.
func (r *Registry) Watch(ctx context.Context, ref string, fn func(api.Operation) error) error {
	o, op, err := r.find(ctx, ref)
	if err != nil {
		return err
	}
	if o == nil {
		return fn(op)
	}
	for {
		op, changed := o.state()
		if err := fn(op); err != nil || op.State.Done() {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Close cancels everything that runs, waits until it has ended, as long as ctx allows, and keeps Begin from starting more.
func (r *Registry) Close(ctx context.Context) error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	all := r.all()
	for _, o := range all {
		o.cancel(errStopping)
	}
	for _, o := range all {
		if err := o.wait(ctx); err != nil {
			return fmt.Errorf("operation %s does not end: %w", o.ID(), err)
		}
	}
	return nil
}

// Do runs fn as an operation of the caller's: it returns when fn has, with the failure if it failed, and when ctx ends first
// the operation is canceled, and Do returns once it has ended. Others see the operation as any other.
func (r *Registry) Do(ctx context.Context, kind, subject string, fn func(ctx context.Context, op *Op) error) error {
	begun := r.Begin(kind, subject, func(ctx context.Context, op *Op) (any, error) { return nil, fn(ctx, op) })
	end, err := r.Wait(ctx, begun.ID)
	if err != nil {
		// What is undone now is bounded by itself, and the caller must not go before it is: its locks are held.
		gone := context.WithoutCancel(ctx)
		if err := r.Cancel(gone, begun.ID); err != nil {
			return err
		}
		if end, err = r.Wait(gone, begun.ID); err != nil {
			return err
		}
	}
	if end.Error != nil {
		return end.Error
	}
	return nil
}

// progressInterval is the least time between two wake-ups of watchers for progress alone.
const progressInterval = 100 * time.Millisecond

// Op is a running operation as its function sees it; it is the function's [Reporter]. It must not be used after the
// function has returned.
type Op struct {
	registry *Registry
	cancel   context.CancelCauseFunc
	ended    chan struct{} // closed when the function has returned and the end is stored

	mu       sync.Mutex    // guards what follows, against watchers
	op       api.Operation // Progress and Error are replaced, never changed in place
	changed  chan struct{} // closed, and replaced, at each change
	progress time.Time     // when progress last woke the watchers
}

var _ Reporter = (*Op)(nil)

// ID returns the operation's id.
func (o *Op) ID() string { return o.op.ID } // never changes

// SetSubject names what the operation is about, once that is known.
func (o *Op) SetSubject(name string) {
	o.update(func(op *api.Operation) { op.Subject = name })
	o.registry.persist(o.snapshot())
}

// Stage begins the named stage and ends the one before it.
func (o *Op) Stage(name string) {
	o.update(func(op *api.Operation) {
		now := time.Now().UTC()
		endStage(op, now)
		op.Stage, op.Progress = name, nil
		op.Stages = append(op.Stages, api.Stage{Name: name, Begun: now, TookMS: -1})
	})
}

// endStage notes how long the present stage took, if there is one.
func endStage(op *api.Operation, now time.Time) {
	if n := len(op.Stages); n > 0 && op.Stages[n-1].TookMS < 0 {
		op.Stages[n-1].TookMS = now.Sub(op.Stages[n-1].Begun).Milliseconds()
	}
}

// Progress says how much of the present stage is done.
func (o *Op) Progress(done, total int64, unit string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.op.Progress = &api.Progress{Done: done, Total: total, Unit: unit}
	if now := time.Now(); now.Sub(o.progress) >= progressInterval {
		o.progress = now
		o.notifyLocked()
	}
}

func (o *Op) update(fn func(*api.Operation)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fn(&o.op)
	o.notifyLocked()
}

func (o *Op) notifyLocked() {
	close(o.changed)
	o.changed = make(chan struct{})
}

// finish sets the end. The function's context tells a failure from a cancellation.
func (o *Op) finish(ctx context.Context, result any, err error) {
	var doc json.RawMessage
	if err == nil && result != nil {
		if doc, err = json.Marshal(result); err != nil {
			err = errkind.New(api.KindInternal, "encode result: %w", err)
		}
	}
	state := api.OperationSucceeded
	switch cause := context.Cause(ctx); {
	case err == nil:
	case cause == errStopping:
		state, err = api.OperationInterrupted, errkind.Wrap(api.KindUnavailable, err)
	case cause != nil:
		state, err = api.OperationCanceled, errkind.Wrap(api.KindCanceled, err)
	default:
		state = api.OperationFailed
	}
	wire := errkind.Wire(err)
	if wire != nil {
		wire.Operation = o.op.ID
	}
	o.update(func(op *api.Operation) {
		op.Ended = time.Now().UTC()
		endStage(op, op.Ended)
		op.State, op.Stage, op.Progress, op.Result, op.Error = state, "", nil, doc, wire
	})
}

func (o *Op) wait(ctx context.Context) error {
	select {
	case <-o.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (o *Op) snapshot() api.Operation {
	op, _ := o.state()
	return op
}

// state returns the operation, and a channel that is closed at its next change.
func (o *Op) state() (api.Operation, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	op := o.op
	op.Stages = slices.Clone(op.Stages)
	return op, o.changed
}
