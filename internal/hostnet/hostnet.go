// Package hostnet is the network that guests share in mode bridge: a bridge with the host's address, a tap for each VM (package
// tappool), packet filter (nat), name server (dnsserver) and the host's way to it (dnsroute).
//
// # Desired state
//
// [Open] makes the host's network right for the VMs that live, whatever an earlier daemon left: links of ours that no VM claims
// are removed, the packet filter is replaced as a whole. Machines do not notice: their taps stay, and connections go on.
// [Network.Close] ends what this process serves and leaves the rest to the machines, which run on; when there are none, nothing
// of ours stays on the host.
//
// Every name derives from a VM's id or from the configuration; only idle taps are anonymous, and they bear our mark.
package hostnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/hostnet/bridge"
	"github.com/banger-vm/banger/internal/hostnet/dnsroute"
	"github.com/banger-vm/banger/internal/hostnet/dnsserver"
	"github.com/banger-vm/banger/internal/hostnet/ipam"
	"github.com/banger-vm/banger/internal/hostnet/nat"
	"github.com/banger-vm/banger/internal/hostnet/tappool"
)

// Domain is the domain in which VMs have names.
const Domain = "vm"

// Config is what a network is opened with.
type Config struct {
	Bridge  string         // the bridge's name
	Owner   string         // a word that no other daemon of this host has: it marks what is ours
	CIDR    string         // the guests' network, or auto
	TapPool int            // how many idle taps wait
	DNS     netip.AddrPort // where the host finds the name server, besides the bridge's address; zero: nowhere
	Forward string         // path of the record that it was banger who switched forwarding on
	Log     *slog.Logger
}

func (c Config) bridge() bridge.Bridge { return bridge.Bridge{Name: c.Bridge, Owner: c.Owner} }

// Network is an open network.
type Network struct {
	cfg    Config
	prefix netip.Prefix
	index  int // of the bridge
	taps   *tappool.Pool
	filter *nat.Filter
	names  *dnsserver.Server
}

// Open makes the network right for the VMs that live. On error nothing serves, and what was there is still there.
func Open(ctx context.Context, cfg Config, live []banger.VM) (_ *Network, err error) {
	n := &Network{cfg: cfg}
	alive := map[banger.VMID]bool{}
	taken := map[netip.Addr]bool{}
	for _, vm := range live {
		alive[vm.ID], taken[vm.Address] = true, true
	}
	if err := cfg.bridge().CleanUp(func(link string) bool {
		id, owned := tappool.Owner(link)
		return !owned || alive[id]
	}); err != nil {
		return nil, err
	}
	if n.prefix, err = choose(cfg, live); err != nil {
		return nil, err
	}
	if n.index, err = cfg.bridge().Set(n.prefix); err != nil {
		return nil, err
	}
	if err := bridge.PruneNeighbors(n.index, func(a netip.Addr) bool { return taken[a] }); err != nil {
		return nil, err
	}
	n.taps = tappool.New(cfg.bridge(), n.index, cfg.TapPool, cfg.Log)
	if err := n.taps.Adopt(func(id banger.VMID) bool { return alive[id] }); err != nil {
		return nil, err
	}
	n.filter = nat.New(cfg.Bridge, n.prefix)
	if err := n.serve(ctx, live); err != nil {
		return nil, err
	}
	return n, nil
}

// serve lets the guests of the VMs that live through, and opens the name server.
func (n *Network) serve(ctx context.Context, live []banger.VM) (err error) {
	guests := map[banger.VMID]nat.Guest{}
	n.names, err = dnsserver.New(dnsserver.Config{
		Domain: Domain, Network: n.prefix, Upstreams: dnsserver.ResolvConf("/etc/resolv.conf"), Log: n.cfg.Log,
	})
	if err != nil {
		return err
	}
	for _, vm := range live {
		if g, err := guestOf(vm); err == nil && n.prefix.Contains(vm.Address) {
			guests[vm.ID] = g
			n.names.Put(vm.ID, record(vm))
		}
	}
	if err := errors.Join(n.filter.Set(ctx, guests), nat.Forward(n.cfg.Forward)); err != nil {
		return err
	}
	listen := []netip.AddrPort{netip.AddrPortFrom(ipam.Gateway(n.prefix), 53)}
	if n.cfg.DNS.IsValid() {
		listen = append(listen, n.cfg.DNS)
	}
	return n.names.Listen(listen...)
}

// choose returns the network for guests: the configured one; else the one that the bridge or a VM has already; else one that the
// host does not use.
func choose(cfg Config, live []banger.VM) (netip.Prefix, error) {
	if cfg.CIDR != "auto" {
		return ipam.ParseNetwork(cfg.CIDR)
	}
	if p, ok := cfg.bridge().Network(); ok {
		return p, nil
	}
	used, err := cfg.bridge().InUse()
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, vm := range live {
		if _, hit := ipam.Overlap(vm.Network, used); vm.Network.IsValid() && !hit {
			return vm.Network, nil
		}
	}
	return ipam.Choose(used)
}

// Prefix is the guests' network.
func (n *Network) Prefix() netip.Prefix { return n.prefix }

// Run fills the pool of taps, answers names, and leads the host's look-ups here, until ctx ends.
func (n *Network) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { n.taps.Run(ctx) })
	wg.Go(func() { n.names.Serve(ctx) })
	wg.Go(func() { dnsroute.Run(ctx, n.index, ipam.Gateway(n.prefix), Domain, n.cfg.Log) })
	wg.Wait()
}

// Close ends the name server. When no VM is live it also removes everything that is ours from the host.
func (n *Network) Close(live bool) error {
	n.names.Close()
	if live {
		return nil
	}
	return Remove(n.cfg)
}

// Remove removes what a network with that configuration left on the host, and may be repeated. Where another daemon has that bridge
// it removes nothing.
func Remove(cfg Config) error {
	if err := cfg.bridge().Remove(); err != nil {
		return err
	}
	return errors.Join(nat.Remove(cfg.Bridge), nat.Unforward(cfg.Forward))
}

// AttachTap gives a VM its tap and returns the tap's name and what its guest must know. The VM has an address in the network.
func (n *Network) AttachTap(vm banger.VM) (tap string, _ guestapi.Net, err error) {
	mac, err := net.ParseMAC(vm.Spec.MAC)
	if err != nil {
		return "", guestapi.Net{}, err
	}
	if err := bridge.SetNeighbor(n.index, vm.Address, mac); err != nil {
		return "", guestapi.Net{}, err
	}
	tap, err = n.taps.Take(vm.ID, vm.Spec.Group == "")
	return tap, n.GuestNet(vm), err
}

// GuestNet is what the guest of a VM must know of the network.
func (n *Network) GuestNet(vm banger.VM) guestapi.Net {
	gateway := ipam.Gateway(n.prefix).String()
	return guestapi.Net{MAC: vm.Spec.MAC, Address: netip.PrefixFrom(vm.Address, n.prefix.Bits()).String(), Gateway: gateway,
		DNS: []string{gateway}, Search: Domain}
}

// DetachTap undoes AttachTap, and may be repeated.
func (n *Network) DetachTap(vm banger.VM) error {
	err := n.taps.Release(vm.ID)
	if vm.Address.IsValid() {
		err = errors.Join(err, bridge.DropNeighbor(n.index, vm.Address))
	}
	return err
}

// AttachFilter lets a VM's frames through as far as its record allows.
func (n *Network) AttachFilter(ctx context.Context, vm banger.VM) error {
	g, err := guestOf(vm)
	if err != nil {
		return err
	}
	return n.filter.Put(ctx, vm.ID, g)
}

// DetachFilter undoes AttachFilter, and may be repeated.
func (n *Network) DetachFilter(ctx context.Context, vm banger.VM) error {
	return n.filter.Drop(ctx, vm.ID)
}

// AttachName makes a VM known by its name.
func (n *Network) AttachName(vm banger.VM) { n.names.Put(vm.ID, record(vm)) }

// DetachName undoes AttachName, and may be repeated.
func (n *Network) DetachName(vm banger.VM) { n.names.Drop(vm.ID) }

func record(vm banger.VM) dnsserver.Guest {
	return dnsserver.Guest{Name: vm.Name, Addr: vm.Address, Forward: vm.Spec.NAT}
}

func guestOf(vm banger.VM) (nat.Guest, error) {
	mac, err := net.ParseMAC(vm.Spec.MAC)
	if err != nil {
		return nat.Guest{}, fmt.Errorf("vm %q: %w", vm.Name, err)
	}
	return nat.Guest{Tap: tappool.Name(vm.ID), MAC: mac, Addr: vm.Address, NAT: vm.Spec.NAT, Group: vm.Spec.Group}, nil
}
