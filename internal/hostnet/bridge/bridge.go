// Package bridge owns the bridge that guests' taps hang on, and the mark by which banger knows its own links.
//
// # Desired state
//
// [Bridge.Set] makes the bridge what it is to be, whatever is there: it may be repeated. [Bridge.CleanUp] removes every link that
// is marked ours and that nobody claims. The mark is the link's alias (IFLA_IFALIAS of rtnetlink(7)), which names owner and bridge,
// so that several daemons leave each other's links alone.
package bridge

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/hostnet/ipam"
	"github.com/vishvananda/netlink"
)

// Bridge names a bridge and who owns it.
type Bridge struct {
	Name  string
	Owner string // a word that no other daemon of this host has
}

// Mark is the alias of every link that belongs to the bridge.
func (b Bridge) Mark() string { return b.Owner + ":" + b.Name }

// Set makes the bridge, up and with the first address of network as its only one, and returns its index. A link of
// that name that is not ours, and another link with addresses or routes in network, are of kind precondition: guests' packets
// would go astray there.
func (b Bridge) Set(network netip.Prefix) (index int, err error) {
	link, err := b.own()
	if err != nil {
		return 0, fmt.Errorf("set up bridge %s: %w", b.Name, err)
	}
	if err := b.vacant(network); err != nil {
		return 0, fmt.Errorf("set up bridge %s: %w", b.Name, err)
	}
	if link == nil {
		if link, err = b.create(); err != nil {
			return 0, fmt.Errorf("create bridge %s: %w", b.Name, err)
		}
	}
	if err := b.configure(link, network); err != nil {
		return 0, fmt.Errorf("set up bridge %s: %w", b.Name, err)
	}
	return link.Attrs().Index, nil
}

// Find returns the link called name, or nil where there is none.
func Find(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	return link, err
}

// own returns our bridge, or nil where no link has its name. A bridge is known by its address, which it has from
// birth; a crash may come before the mark.
func (b Bridge) own() (netlink.Link, error) {
	link, err := Find(b.Name)
	if err != nil || link == nil {
		return nil, err
	}
	if link.Type() != "bridge" || !bytes.Equal(link.Attrs().HardwareAddr, b.hardwareAddr()) {
		return nil, errkind.WithHint(errkind.New(api.KindPrecondition, "there is a link %s (%s) that is not this banger's", b.Name, link.Type()),
			"remove it, or set network.bridge in the configuration to another name")
	}
	return link, nil
}

func (b Bridge) create() (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = b.Name, b.hardwareAddr()
	snooping := false
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return nil, err
	}
	return netlink.LinkByName(b.Name)
}

// hardwareAddr derives the bridge's address from its mark. Without one of its own a bridge takes the lowest of its ports', which
// changes as taps come and go, and guests would send to one that is gone.
func (b Bridge) hardwareAddr() net.HardwareAddr {
	sum := sha256.Sum256([]byte(b.Mark()))
	return net.HardwareAddr{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]} // locally administered (IEEE 802-2014, 8.2.2)
}

func (b Bridge) configure(link netlink.Link, network netip.Prefix) error {
	if err := netlink.LinkSetAlias(link, b.Mark()); err != nil {
		return err
	}
	// Guests have no IPv6 (ADR 0010), and must not reach the host by a link-local address.
	path := "/proc/sys/net/ipv6/conf/" + b.Name + "/disable_ipv6"
	if err := os.WriteFile(path, []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	want := &net.IPNet{IP: ipam.Gateway(network).AsSlice(), Mask: net.CIDRMask(network.Bits(), 32)}
	have, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, a := range have {
		if a.IPNet.String() != want.String() {
			if err := netlink.AddrDel(link, &a); err != nil {
				return fmt.Errorf("remove address %s: %w", a.IPNet, err)
			}
		}
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: want}); err != nil {
		return fmt.Errorf("add address %s: %w", want, err)
	}
	return netlink.LinkSetUp(link)
}

// vacant refuses a network that a link other than the bridge has an address or a route in. Our own stale links are no
// obstacle: CleanUp has removed them.
func (b Bridge) vacant(network netip.Prefix) error {
	used, err := b.inUse()
	if err != nil {
		return err
	}
	for _, u := range used {
		if hit, yes := ipam.Overlap(network, []netip.Prefix{u.prefix}); yes {
			return errkind.WithHint(errkind.New(api.KindPrecondition, "the network %s for guests overlaps %s on %s", network, hit, u.link),
				"set network.cidr in the configuration to another network, or remove that address or route")
		}
	}
	return nil
}

// InUse returns the networks that the host has addresses in or routes to, but for those of the bridge.
func (b Bridge) InUse() ([]netip.Prefix, error) {
	used, err := b.inUse()
	var out []netip.Prefix
	for _, u := range used {
		out = append(out, u.prefix)
	}
	return out, err
}

// use is a network that a link has.
type use struct {
	prefix netip.Prefix
	link   string
}

func (b Bridge) inUse() ([]use, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	var out []use
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
		if l.Attrs().Name == b.Name {
			continue
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if p, ok := prefixOf(a.IPNet); ok {
				out = append(out, use{p, l.Attrs().Name})
			}
		}
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	for _, r := range routes {
		if p, ok := prefixOf(r.Dst); ok && names[r.LinkIndex] != b.Name {
			out = append(out, use{p, names[r.LinkIndex]})
		}
	}
	return out, nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), ones).Masked(), ok
}

// Network returns the network that the bridge has an address in, if it is there and ours.
func (b Bridge) Network() (netip.Prefix, bool) {
	link, err := b.own()
	if err != nil || link == nil {
		return netip.Prefix{}, false
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil || len(addrs) == 0 {
		return netip.Prefix{}, false
	}
	return prefixOf(addrs[0].IPNet)
}

// CleanUp removes every link that is marked as belonging to the bridge and that keep does not want, the bridge itself excepted.
func (b Bridge) CleanUp(keep func(link string) bool) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("clean up links of bridge %s: %w", b.Name, err)
	}
	var errs []error
	for _, l := range links {
		name := l.Attrs().Name
		if l.Attrs().Alias == b.Mark() && name != b.Name && !keep(name) {
			errs = append(errs, Delete(l))
		}
	}
	return errors.Join(errs...)
}

// Delete removes a link; one that is gone already is no error.
func Delete(l netlink.Link) error {
	err := netlink.LinkDel(l)
	if err != nil && !errors.Is(err, syscall.ENODEV) {
		return fmt.Errorf("remove link %s: %w", l.Attrs().Name, err)
	}
	return nil
}

// Remove removes the bridge and all that belongs to it, and may be repeated. A link of its name that is not ours stays.
func (b Bridge) Remove() error {
	err := b.CleanUp(func(string) bool { return false })
	link, findErr := b.own()
	if findErr != nil || link == nil {
		return errors.Join(err, findErr)
	}
	return errors.Join(err, Delete(link))
}

// SetNeighbor pins the hardware address of a guest, so that one whose address was another's before is reached at once.
func SetNeighbor(index int, addr netip.Addr, mac net.HardwareAddr) error {
	err := netlink.NeighSet(&netlink.Neigh{LinkIndex: index, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT,
		IP: addr.AsSlice(), HardwareAddr: mac})
	if err != nil {
		return fmt.Errorf("pin neighbor %s: %w", addr, err)
	}
	return nil
}

// PruneNeighbors forgets the guests of the bridge with that index that keep does not want.
func PruneNeighbors(index int, keep func(netip.Addr) bool) error {
	all, err := netlink.NeighList(index, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list neighbors: %w", err)
	}
	var errs []error
	for _, n := range all {
		addr, ok := netip.AddrFromSlice(n.IP)
		if ok && n.State == netlink.NUD_PERMANENT && !keep(addr.Unmap()) {
			errs = append(errs, DropNeighbor(index, addr.Unmap()))
		}
	}
	return errors.Join(errs...)
}

// DropNeighbor undoes SetNeighbor, and may be repeated.
func DropNeighbor(index int, addr netip.Addr) error {
	err := netlink.NeighDel(&netlink.Neigh{LinkIndex: index, Family: netlink.FAMILY_V4, IP: addr.AsSlice()})
	if err != nil && !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENODEV) {
		return fmt.Errorf("forget neighbor %s: %w", addr, err)
	}
	return nil
}
