package capabilities

import (
	"context"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vmm"
)

// Network is the host's network for guests, as the capabilities of mode bridge use it. What attaches may be repeated, what detaches
// may be called for what was never attached.
type Network interface {
	AttachTap(vm banger.VM) (tap string, net guestapi.Net, err error)
	GuestNet(vm banger.VM) guestapi.Net
	DetachTap(vm banger.VM) error
	AttachFilter(ctx context.Context, vm banger.VM) error
	DetachFilter(ctx context.Context, vm banger.VM) error
	AttachName(vm banger.VM)
	DetachName(vm banger.VM)
}

// BridgeNIC gives a VM one network interface on the host's bridge: a tap, and the address that its record has.
type BridgeNIC struct{ Net Network }

// Name implements capability.Capability.
func (BridgeNIC) Name() string { return "nic" }

// Attach implements capability.Capability.
func (b BridgeNIC) Attach(_ context.Context, r *capability.Run) error {
	tap, net, err := b.Net.AttachTap(r.VM)
	if err != nil {
		return err
	}
	r.Spec.NIC = &vmm.NIC{MAC: r.VM.Spec.MAC, Tap: tap}
	r.Boot.Net = &net
	return nil
}

// Detach implements capability.Capability.
func (b BridgeNIC) Detach(_ context.Context, r *capability.Run) error { return b.Net.DetachTap(r.VM) }

// Reattach implements capability.Reattacher: the machine has its tap, the network was opened with it.
func (b BridgeNIC) Reattach(_ context.Context, r *capability.Run) error {
	net := b.Net.GuestNet(r.VM)
	r.Boot.Net = &net
	return nil
}

// NAT lets a VM reach out, and the VMs of its group, as far as its record allows.
type NAT struct{ Net Network }

// Name implements capability.Capability.
func (NAT) Name() string { return "nat" }

// Attach implements capability.Capability.
func (n NAT) Attach(ctx context.Context, r *capability.Run) error {
	return n.Net.AttachFilter(ctx, r.VM)
}

// Detach implements capability.Capability.
func (n NAT) Detach(ctx context.Context, r *capability.Run) error {
	return n.Net.DetachFilter(ctx, r.VM)
}

// Reattach implements capability.Reattacher.
func (n NAT) Reattach(ctx context.Context, r *capability.Run) error {
	return n.Net.AttachFilter(ctx, r.VM)
}

// DNS makes a VM known by its name.
type DNS struct{ Net Network }

// Name implements capability.Capability.
func (DNS) Name() string { return "dns" }

// Attach implements capability.Capability.
func (d DNS) Attach(_ context.Context, r *capability.Run) error {
	d.Net.AttachName(r.VM)
	return nil
}

// Detach implements capability.Capability.
func (d DNS) Detach(_ context.Context, r *capability.Run) error {
	d.Net.DetachName(r.VM)
	return nil
}

// Reattach implements capability.Reattacher.
func (d DNS) Reattach(ctx context.Context, r *capability.Run) error { return d.Attach(ctx, r) }
