package daemon

import (
	"context"
	"net/netip"

	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/capabilities"
	"github.com/banger-vm/banger/internal/hostnet"
	"github.com/banger-vm/banger/internal/hostnet/publish"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vm/capability"
)

// network is how guests are connected.
type network struct {
	choice hostnet.Choice
	bridge *hostnet.Network // nil in mode user
	ports  *publish.Ports
}

func (d *Daemon) openNetwork(ctx context.Context) error {
	c := d.opts.Config.Network
	d.net.ports = publish.New(func(id banger.VMID) func() { return d.vms.Use(context.Background(), string(id)) }, d.log)
	d.onClose(d.net.ports.CloseAll)
	if d.net.choice.Mode != hostnet.ModeBridge {
		return nil
	}
	cfg := hostnet.Config{
		Bridge: c.Bridge, Owner: d.opts.Paths.Cgroup(), CIDR: c.CIDR, TapPool: c.TapPool,
		Forward: d.opts.Paths.Forwarding(), Log: d.log,
	}
	if c.DNS != "" {
		var err error
		if cfg.DNS, err = netip.ParseAddrPort(c.DNS); err != nil {
			return err
		}
	}
	live, err := d.liveVMs(ctx)
	if err != nil {
		return err
	}
	d.net.bridge, err = hostnet.Open(ctx, cfg, live)
	if err != nil {
		return err
	}
	d.onClose(d.closeBridge)
	return nil
}

func (d *Daemon) liveVMs(ctx context.Context) ([]banger.VM, error) {
	vms, err := d.store.ListVMs(ctx)
	var live []banger.VM
	for _, vm := range vms {
		if vm.State.Live() {
			live = append(live, vm)
		}
	}
	return live, err
}

func (d *Daemon) closeBridge() {
	live, err := d.liveVMs(context.Background())
	if err == nil {
		err = d.net.bridge.Close(len(live) > 0)
	}
	if err != nil {
		d.log.Error("close the network", "err", err)
	}
}

// prefix is the network in which VMs get addresses, if they do.
func (n network) prefix() netip.Prefix {
	if n.bridge == nil {
		return netip.Prefix{}
	}
	return n.bridge.Prefix()
}

func (n network) capabilities() []capability.Capability {
	if n.bridge == nil {
		return []capability.Capability{capabilities.UserNIC{}}
	}
	return []capability.Capability{capabilities.BridgeNIC{Net: n.bridge}, capabilities.NAT{Net: n.bridge}, capabilities.DNS{Net: n.bridge}}
}

// check returns how doctor asks after the network.
func (n network) check() func(context.Context) (string, []preflight.Problem) {
	if n.bridge == nil {
		return nil
	}
	return n.bridge.Check
}
