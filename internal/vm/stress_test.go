package vm_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
)

// TestMixedRequests sends 200 requests of every kind to 20 VMs at once, while machines crash and requests are canceled. How each
// ends is left to chance; what must hold is that every failure has a kind that such a crowd explains, that no VM is left between two states,
// that each state agrees with the machines, and that all can be deleted.
func TestMixedRequests(t *testing.T) {
	const vms, requests = 20, 200
	h := newHouse(t)
	for i := range vms {
		h.must(h.create(api.VMCreate{Name: fmt.Sprintf("vm-%d", i), Start: i%2 == 0}))
	}
	verbs := []func(ctx context.Context, name string) error{
		func(ctx context.Context, name string) error {
			_, err := h.vms.Start(ctx, name, opstate.Discard)
			return err
		},
		func(ctx context.Context, name string) error {
			_, err := h.vms.Stop(ctx, name, 0, opstate.Discard)
			return err
		},
		func(ctx context.Context, name string) error {
			_, err := h.vms.Kill(ctx, name, 0, opstate.Discard)
			return err
		},
		func(ctx context.Context, name string) error {
			_, err := h.vms.Restart(ctx, name, 0, opstate.Discard)
			return err
		},
		func(ctx context.Context, name string) error { return h.vms.Delete(ctx, name, true, opstate.Discard) },
		func(ctx context.Context, name string) error {
			_, err := h.vms.Set(ctx, api.VMSet{Ref: api.Ref{Ref: name}, VCPU: 1 + rand.IntN(2), Restart: true}, opstate.Discard)
			return err
		},
		func(_ context.Context, name string) error {
			_, err := h.create(api.VMCreate{Name: name, Start: true})
			return err
		},
		func(ctx context.Context, name string) error { _, _, err := h.vms.Health(ctx, name); return err },
		func(ctx context.Context, name string) error {
			vm, err := h.vms.Get(ctx, name)
			if err == nil {
				h.host.Crash(vm.ID)
			}
			return err
		},
		func(ctx context.Context, _ string) error { _, err := h.vms.List(ctx); return err },
	}
	var crowd sync.WaitGroup
	errs := make([]error, requests)
	for i := range requests {
		crowd.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%7 == 0 {
				time.AfterFunc(time.Duration(rand.IntN(20))*time.Millisecond, cancel)
			}
			errs[i] = verbs[i%len(verbs)](ctx, fmt.Sprintf("vm-%d", rand.IntN(vms)))
		})
	}
	crowd.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) && !explained(err) {
			t.Errorf("a request failed with kind %q: %v", errkind.Of(err), err)
		}
	}
	h.eventually("every VM is at rest and agrees with its machine", h.atRest)
	all, err := h.vms.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		if err := h.vms.Delete(t.Context(), string(v.ID), true, opstate.Discard); err != nil {
			t.Error(err)
		}
	}
	h.empty()
}

// explained reports whether err is one that requests which get into each other's way may have.
func explained(err error) bool {
	for _, kind := range []api.ErrorKind{
		api.KindNotFound, api.KindExists, api.KindBusy, api.KindPrecondition, api.KindUnavailable, api.KindGuest, api.KindCanceled,
	} {
		if errkind.Is(err, kind) {
			return true
		}
	}
	return false
}

// atRest reports whether each VM is in a state that lasts, and runs exactly if it has a machine.
func (h *house) atRest() bool {
	all, err := h.vms.List(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	up := 0
	for _, v := range all {
		switch v.State {
		case banger.Running:
			up++
		case banger.Created, banger.Stopped, banger.Failed:
		default:
			return false
		}
	}
	return up == len(h.host.Running())
}
