package capability

import (
	"context"
	"slices"
	"time"

	"github.com/banger-vm/banger/internal/banger"
)

// Inspector is a capability that can go wrong, or be about to, while a VM runs. The error becomes a condition of the VM for as long
// as Inspect returns it, so its text should not change without need. Inspect changes nothing and, unlike the others, is called without
// the VM's lock.
type Inspector interface {
	Inspect(ctx context.Context, r *Run) error
}

// Inspection is what came of a look at a running VM.
type Inspection struct {
	Found []banger.Condition // one for each inspector that found something
	Asked []string           // the names of all inspectors, which are the types of their conditions
}

// Inspect asks every inspector about a running VM.
func (c *Chain) Inspect(ctx context.Context, r *Run) Inspection {
	var i Inspection
	for _, p := range c.caps {
		q, ok := p.(Inspector)
		if !ok {
			continue
		}
		i.Asked = append(i.Asked, p.Name())
		if err := q.Inspect(ctx, r); err != nil {
			i.Found = append(i.Found, banger.Condition{Type: p.Name(), Message: err.Error(), Since: time.Now()})
		}
	}
	return i
}

// Update returns a VM's conditions after the inspection: those of other types, and what was found. One that was there keeps its
// beginning.
func (i Inspection) Update(old []banger.Condition) []banger.Condition {
	var out []banger.Condition
	for _, c := range old {
		if !slices.Contains(i.Asked, c.Type) {
			out = append(out, c)
		}
	}
	for _, c := range i.Found {
		for _, before := range old {
			if before.Type == c.Type && before.Message == c.Message {
				c.Since = before.Since
			}
		}
		out = append(out, c)
	}
	return out
}
