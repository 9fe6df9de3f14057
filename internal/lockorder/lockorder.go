// Package lockorder checks the order of the locks that are held for whole operations: of VMs, images and kernels (docs/LOCKING.md).
// The rule is short: who holds one takes no other. Two operations that each wait for the other's lock would wait for ever, or
// until a time-out that has nothing to do with what went wrong.
//
// A context carries what its holder has taken, so a lock gives its taker a context to go on with. The check is made in builds with the
// race detector, which all tests have, and costs nothing in others.
package lockorder

import "context"

type held struct{}

// Take returns the context of a caller who is about to take the lock called name, such as `vm "web"`. In builds with the race
// detector it panics if ctx is that of somebody who holds another: that is a defect of ours.
func Take(ctx context.Context, name string) context.Context {
	if !checked {
		return ctx
	}
	if other, ok := ctx.Value(held{}).(string); ok {
		panic("lockorder: taking the lock of " + name + " while holding that of " + other)
	}
	return context.WithValue(ctx, held{}, name)
}
