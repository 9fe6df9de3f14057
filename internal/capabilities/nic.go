package capabilities

import (
	"context"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/hostnet/usernet"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vmm"
)

// UserNIC gives a VM one network interface on the VMM's user-mode stack. It needs no privilege and leaves nothing on the
// host.
type UserNIC struct{}

// Name implements capability.Capability.
func (UserNIC) Name() string { return "nic" }

// Checks asks whether the VMM has such a stack.
func (UserNIC) Checks(r *capability.Run) []preflight.Check {
	return []preflight.Check{{Name: "network", Ask: func(context.Context) (string, []preflight.Problem) {
		if !r.Driver.Features().UserNet {
			return "", []preflight.Problem{{
				Detail: r.Driver.Name() + " has no user-mode network", Fix: `use another VMM: set vmm = "auto" in the configuration`,
			}}
		}
		return "user-mode stack of the VMM", nil
	}}}
}

// Attach implements capability.Capability. Without NAT nothing leaves the stack.
func (UserNIC) Attach(_ context.Context, r *capability.Run) error {
	mac := r.VM.Spec.MAC
	r.Spec.NIC = &vmm.NIC{MAC: mac, Restrict: !r.VM.Spec.NAT}
	if r.Making {
		r.Boot.Net = &guestapi.Net{MAC: mac}
		return nil
	}
	net := usernet.Guest(mac)
	r.Boot.Net = &net
	return nil
}

// Detach implements capability.Capability; the stack goes with the machine.
func (UserNIC) Detach(context.Context, *capability.Run) error { return nil }
