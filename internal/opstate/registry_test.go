package opstate_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
)

// memory is a Persister in memory. It remembers every state it was given.
type memory struct {
	mu    sync.Mutex
	ops   map[string]api.Operation
	puts  []api.Operation
	fault error
}

func (m *memory) PutOperation(_ context.Context, op api.Operation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault != nil {
		return m.fault
	}
	m.ops[op.ID] = op
	m.puts = append(m.puts, op)
	return nil
}

func (m *memory) GetOperation(_ context.Context, ref string) (api.Operation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, op := range m.ops {
		if ref != "" && strings.HasPrefix(id, ref) {
			return op, nil
		}
	}
	return api.Operation{}, errkind.New(api.KindNotFound, "no operation %q", ref)
}

func (m *memory) ListOperations(context.Context, int) ([]api.Operation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []api.Operation
	for _, op := range m.ops {
		out = append(out, op)
	}
	return out, m.fault
}

// states returns the stored states in the order they were stored.
func (m *memory) states() (out []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, op := range m.puts {
		out = append(out, string(op.State)+" "+op.Subject)
	}
	return out
}

func setUp() (*opstate.Registry, *memory, *bytes.Buffer) {
	m := &memory{ops: map[string]api.Operation{}}
	var log bytes.Buffer
	return opstate.New(m, slog.New(slog.NewTextHandler(&log, nil))), m, &log
}

// inBubble runs f with a fresh registry where time is synthetic (testing/synctest).
func inBubble(t *testing.T, name string, f func(t *testing.T, r *opstate.Registry, m *memory, log *bytes.Buffer)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, m, log := setUp()
			f(t, r, m, log)
			if err := r.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	})
}

// untilCanceled is the work of an operation that ends only with its context.
func untilCanceled(ctx context.Context, _ *opstate.Op) (any, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func TestEnd(t *testing.T) {
	inBubble(t, "stages are timed and the result is stored", func(t *testing.T, r *opstate.Registry, m *memory, _ *bytes.Buffer) {
		begun := r.Begin("vm.create", "", func(_ context.Context, op *opstate.Op) (any, error) {
			op.SetSubject("web")
			op.Stage("clone")
			time.Sleep(time.Second)
			op.Stage("boot")
			time.Sleep(2 * time.Second)
			return api.Ref{Ref: "abc"}, nil
		})
		if begun.State != api.OperationRunning || begun.ID == "" || begun.Kind != "vm.create" {
			t.Errorf("began as %+v", begun)
		}
		op, err := r.Wait(t.Context(), begun.ID)
		if err != nil {
			t.Fatal(err)
		}
		if op.State != api.OperationSucceeded || string(op.Result) != `{"ref":"abc"}` || op.Stage != "" || op.Ended.Sub(op.Created) != 3*time.Second {
			t.Errorf("ended as %+v", op)
		}
		if len(op.Stages) != 2 || op.Stages[0].TookMS != 1000 || op.Stages[1].TookMS != 2000 || op.Stages[1].Name != "boot" {
			t.Errorf("stages %+v", op.Stages)
		}
		if got, want := m.states(), []string{"running ", "running web", "succeeded web"}; !slices.Equal(got, want) {
			t.Errorf("stored %q, want %q", got, want)
		}
	})

	inBubble(t, "a failure keeps kind and hint, and names the operation", func(t *testing.T, r *opstate.Registry, _ *memory, log *bytes.Buffer) {
		id := r.Begin("vm.create", "web", func(context.Context, *opstate.Op) (any, error) {
			return nil, errkind.WithHint(errkind.New(api.KindExists, "name is taken"), "choose another")
		}).ID
		op, err := r.Wait(t.Context(), id)
		if err != nil || op.State != api.OperationFailed || op.Error == nil || op.Result != nil {
			t.Fatalf("%+v, %v", op, err)
		}
		if want := (api.Error{Kind: api.KindExists, Message: "name is taken", Hint: "choose another", Operation: id}); *op.Error != want {
			t.Errorf("error %+v", op.Error)
		}
		if !strings.Contains(log.String(), "name is taken") {
			t.Error("the failure is not in the log")
		}
	})

	inBubble(t, "a panic is an internal error, with its stack in the log", func(t *testing.T, r *opstate.Registry, _ *memory, log *bytes.Buffer) {
		op, err := r.Wait(t.Context(), r.Begin("vm.create", "", func(context.Context, *opstate.Op) (any, error) { panic("oops") }).ID)
		if err != nil || op.State != api.OperationFailed || op.Error.Kind != api.KindInternal || !strings.Contains(op.Error.Message, "oops") {
			t.Errorf("%+v, %v", op, err)
		}
		if !strings.Contains(log.String(), "registry_test.go") {
			t.Error("no stack in the log")
		}
	})

	inBubble(t, "a result that is no JSON is an internal error", func(t *testing.T, r *opstate.Registry, _ *memory, _ *bytes.Buffer) {
		op, _ := r.Wait(t.Context(), r.Begin("x", "", func(context.Context, *opstate.Op) (any, error) { return func() {}, nil }).ID)
		if op.State != api.OperationFailed || op.Error.Kind != api.KindInternal {
			t.Errorf("%+v", op)
		}
	})

	inBubble(t, "one that cannot be stored runs all the same and stays known", func(t *testing.T, r *opstate.Registry, m *memory, log *bytes.Buffer) {
		m.fault = errors.New("disk full")
		id := r.Begin("x", "", func(context.Context, *opstate.Op) (any, error) { return 1, nil }).ID
		if op, err := r.Wait(t.Context(), id); err != nil || op.State != api.OperationSucceeded {
			t.Errorf("%+v, %v", op, err)
		}
		if op, err := r.Get(id); err != nil || op.State != api.OperationSucceeded {
			t.Errorf("%+v, %v", op, err)
		}
		if got := r.List(); len(got) != 1 || got[0].ID != id {
			t.Errorf("list %+v", got)
		}
		if !strings.Contains(log.String(), "disk full") {
			t.Error("not in the log")
		}
	})
}

func TestCancel(t *testing.T) {
	inBubble(t, "waits for the end, which is canceled", func(t *testing.T, r *opstate.Registry, m *memory, _ *bytes.Buffer) {
		undone := false
		id := r.Begin("x", "", func(ctx context.Context, _ *opstate.Op) (any, error) {
			<-ctx.Done()
			time.Sleep(time.Minute) // undoing takes a while
			undone = true
			return nil, errors.New("qemu was killed")
		}).ID
		if err := r.Cancel(t.Context(), id); err != nil || !undone {
			t.Errorf("undone %v, %v", undone, err)
		}
		if op, err := r.Get(id); err != nil || op.State != api.OperationCanceled || op.Error.Kind != api.KindCanceled {
			t.Errorf("%+v, %v", op, err)
		}
		if err := r.Cancel(t.Context(), id); err != nil {
			t.Errorf("canceled again: %v", err)
		}
		if got := m.states(); !slices.Equal(got, []string{"running ", "canceled "}) {
			t.Errorf("stored %q", got)
		}
	})

	inBubble(t, "work that ends well in spite of it has succeeded", func(t *testing.T, r *opstate.Registry, _ *memory, _ *bytes.Buffer) {
		id := r.Begin("x", "", func(ctx context.Context, _ *opstate.Op) (any, error) { <-ctx.Done(); return 1, nil }).ID
		if err := r.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if op, _ := r.Get(id); op.State != api.OperationSucceeded || op.Error != nil {
			t.Errorf("%+v", op)
		}
	})

	inBubble(t, "does not wait longer than its caller", func(t *testing.T, r *opstate.Registry, _ *memory, _ *bytes.Buffer) {
		release := make(chan struct{})
		id := r.Begin("x", "", func(context.Context, *opstate.Op) (any, error) { <-release; return nil, nil }).ID
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Cancel(ctx, id); !errkind.Is(err, api.KindTimeout) {
			t.Errorf("got %v", err)
		}
		if _, err := r.Wait(ctx, id); !errkind.Is(err, api.KindTimeout) {
			t.Errorf("got %v", err)
		}
		close(release)
	})
}

func TestWatch(t *testing.T) {
	inBubble(t, "sees every stage, some progress, and the end last", func(t *testing.T, r *opstate.Registry, _ *memory, _ *bytes.Buffer) {
		step := make(chan struct{})
		id := r.Begin("x", "", func(_ context.Context, op *opstate.Op) (any, error) {
			<-step
			op.Stage("one")
			<-step
			for i := range int64(10_000) {
				op.Progress(i, 10_000, "bytes")
			}
			<-step
			op.Stage("two")
			<-step
			return nil, nil
		}).ID
		var seen []string
		done := make(chan error)
		go func() {
			done <- r.Watch(t.Context(), id, func(op api.Operation) error {
				text := string(op.State) + " " + op.Stage
				if op.Progress != nil {
					text += " progress"
				}
				seen = append(seen, text)
				return nil
			})
		}()
		for range 4 {
			synctest.Wait() // until the watcher has seen the change before
			step <- struct{}{}
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if want := []string{"running ", "running one", "running one progress", "running two", "succeeded "}; !slices.Equal(seen, want) {
			t.Errorf("saw %q, want %q", seen, want)
		}
	})

	inBubble(t, "a slow watcher misses changes but not the end", func(t *testing.T, r *opstate.Registry, _ *memory, _ *bytes.Buffer) {
		id := r.Begin("x", "", func(_ context.Context, op *opstate.Op) (any, error) {
			for range 100 {
				op.Stage("again")
				time.Sleep(time.Millisecond)
			}
			return nil, nil
		}).ID
		var last api.Operation
		calls := 0
		err := r.Watch(t.Context(), id, func(op api.Operation) error {
			time.Sleep(time.Second)
			last = op
			calls++
			return nil
		})
		if err != nil || last.State != api.OperationSucceeded || calls > 3 {
			t.Errorf("%d calls, last %+v, %v", calls, last, err)
		}
	})

	inBubble(t, "ends with the watcher's error or context, and the work goes on", func(t *testing.T, r *opstate.Registry, _ *memory, _ *bytes.Buffer) {
		id := r.Begin("x", "", untilCanceled).ID
		mine := errors.New("mine")
		if err := r.Watch(t.Context(), id, func(api.Operation) error { return mine }); !errors.Is(err, mine) {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Watch(ctx, id, func(api.Operation) error { return nil }); !errkind.Is(err, api.KindTimeout) {
			t.Errorf("got %v", err)
		}
		if op, err := r.Get(id); err != nil || op.State != api.OperationRunning {
			t.Errorf("%+v, %v", op, err)
		}
	})

	inBubble(t, "one that has ended is shown once", func(t *testing.T, r *opstate.Registry, _ *memory, _ *bytes.Buffer) {
		id := r.Begin("x", "", func(context.Context, *opstate.Op) (any, error) { return nil, nil }).ID
		synctest.Wait()
		calls := 0
		if err := r.Watch(t.Context(), id[:6], func(op api.Operation) error { calls++; return nil }); err != nil || calls != 1 {
			t.Errorf("%d calls, %v", calls, err)
		}
	})
}

func TestLookUp(t *testing.T) {
	inBubble(t, "running ones come as they are now, newest first", func(t *testing.T, r *opstate.Registry, _ *memory, _ *bytes.Buffer) {
		var ids []string
		for range 3 {
			ids = append(ids, r.Begin("x", "", func(ctx context.Context, op *opstate.Op) (any, error) {
				op.Stage("here")
				return untilCanceled(ctx, op)
			}).ID)
			time.Sleep(time.Second)
		}
		if err := r.Cancel(t.Context(), ids[1]); err != nil {
			t.Fatal(err)
		}
		got := r.List()
		if len(got) != 3 || got[0].ID != ids[2] || got[2].ID != ids[0] || got[0].Stage != "here" || got[1].State != api.OperationCanceled {
			t.Errorf("list %+v", got)
		}
		if op, err := r.Get(ids[0][:8]); err != nil || op.Stage != "here" {
			t.Errorf("by prefix: %+v, %v", op, err)
		}
	})

	inBubble(t, "an unknown id is of kind not-found everywhere", func(t *testing.T, r *opstate.Registry, _ *memory, _ *bytes.Buffer) {
		_, get := r.Get("nope")
		_, wait := r.Wait(t.Context(), "nope")
		for _, err := range []error{get, wait, r.Cancel(t.Context(), "nope"), r.Watch(t.Context(), "nope", nil)} {
			if !errkind.Is(err, api.KindNotFound) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestClose(t *testing.T) {
	inBubble(t, "interrupts what runs and starts no more", func(t *testing.T, r *opstate.Registry, m *memory, _ *bytes.Buffer) {
		id := r.Begin("x", "", untilCanceled).ID
		if err := r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if op, err := r.Get(id); err != nil || op.State != api.OperationInterrupted || op.Error.Kind != api.KindUnavailable || op.Error.Hint == "" {
			t.Errorf("%+v, %v", op, err)
		}
		late := r.Begin("x", "", func(context.Context, *opstate.Op) (any, error) { t.Error("ran"); return nil, nil })
		if late.State != api.OperationInterrupted {
			t.Errorf("%+v", late)
		}
		if op, err := r.Wait(t.Context(), late.ID); err != nil || op.State != api.OperationInterrupted {
			t.Errorf("%+v, %v", op, err)
		}
		if len(m.states()) != 3 {
			t.Errorf("stored %q", m.states())
		}
	})

	inBubble(t, "does not wait longer than its caller", func(t *testing.T, r *opstate.Registry, _ *memory, _ *bytes.Buffer) {
		release := make(chan struct{})
		r.Begin("x", "", func(context.Context, *opstate.Op) (any, error) { <-release; return nil, nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Close(ctx); !errkind.Is(err, api.KindTimeout) {
			t.Errorf("got %v", err)
		}
		close(release)
	})
}

func TestConcurrentUse(t *testing.T) {
	r, _, _ := setUp()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			id := r.Begin("x", "", func(ctx context.Context, op *opstate.Op) (any, error) {
				op.SetSubject("s")
				for i := range int64(50) {
					op.Stage("stage")
					op.Progress(i, 50, "files")
				}
				return nil, ctx.Err()
			}).ID
			wg.Go(func() {
				if err := r.Watch(t.Context(), id, func(op api.Operation) error { _ = len(op.Stages); return nil }); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() { r.List() })
			if err := r.Cancel(t.Context(), id); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
