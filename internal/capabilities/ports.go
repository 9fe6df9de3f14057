package capabilities

import (
	"context"

	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/hostnet/publish"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vm/capability"
)

// Ports publishes ports of a VM on the host. It comes after agent, through which the connections go.
type Ports struct{ Open *publish.Ports }

// Name implements capability.Capability.
func (Ports) Name() string { return "ports" }

// Checks implements capability.Checker.
func (p Ports) Checks(r *capability.Run) []preflight.Check {
	return []preflight.Check{{Name: "ports", Ask: func(context.Context) (string, []preflight.Problem) {
		if err := p.Open.Check(r.VM.ID, r.VM.Spec.Publish); err != nil {
			return "", []preflight.Problem{{Detail: err.Error(), Fix: errkind.Hint(err), Kind: errkind.Of(err)}}
		}
		return "published ports are free", nil
	}}}
}

// Attach implements capability.Capability.
func (p Ports) Attach(_ context.Context, r *capability.Run) error { return p.Open.Open(r.VM, r.Link) }

// Detach implements capability.Capability.
func (p Ports) Detach(_ context.Context, r *capability.Run) error {
	p.Open.Close(r.VM.ID)
	return nil
}

// Reattach implements capability.Reattacher.
func (p Ports) Reattach(ctx context.Context, r *capability.Run) error { return p.Attach(ctx, r) }
