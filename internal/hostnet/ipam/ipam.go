// Package ipam does the arithmetic of guests' addresses: which network a host can spare, and which address in it is free. It
// holds no state: a VM's address is in its record (package store), so it is reserved in the transaction that reserves the name,
// and is free when the record is gone.
package ipam

import (
	"net/netip"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// candidates are private networks (RFC 1918) that few others use: away from what home routers, container engines and cloud
// providers take by default. The /24 are for hosts that route all of 10.0.0.0/8.
func candidates() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range []string{"10.209.0.0/16", "10.217.0.0/16", "10.233.0.0/16", "172.29.0.0/16", "192.168.209.0/24", "192.168.217.0/24"} {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// Choose returns a network for guests that overlaps none of used.
func Choose(used []netip.Prefix) (netip.Prefix, error) {
	for _, c := range candidates() {
		if _, hit := Overlap(c, used); !hit {
			return c, nil
		}
	}
	return netip.Prefix{}, errkind.WithHint(errkind.New(api.KindUnavailable, "every network that banger would take for its guests is in use"),
		"set network.cidr in the configuration to a private network that this host does not use")
}

// Overlap returns the first of used that shares addresses with p.
func Overlap(p netip.Prefix, used []netip.Prefix) (netip.Prefix, bool) {
	for _, u := range used {
		if u.Bits() > 0 && p.Overlaps(u) { // a default route claims nothing
			return u, true
		}
	}
	return netip.Prefix{}, false
}

// ParseNetwork reads a network for guests: an IPv4 prefix with room for the host and one guest at least.
func ParseNetwork(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 30 || p != p.Masked() {
		return p, errkind.WithHint(errkind.New(api.KindInvalid, "%q is no network for guests", text),
			"write an IPv4 network with a length of 8 to 30, such as 10.209.0.0/16")
	}
	return p, nil
}

// Gateway is the host's address in p: the first one.
func Gateway(p netip.Prefix) netip.Addr { return p.Masked().Addr().Next() }

// Next returns the lowest address in p that no guest has. taken must be sorted; addresses outside p do not matter.
func Next(p netip.Prefix, taken []netip.Addr) (netip.Addr, error) {
	free := Gateway(p).Next()
	for _, t := range taken {
		if t == free {
			free = free.Next()
		}
	}
	if !p.Contains(free) || !p.Contains(free.Next()) { // the last one is the broadcast address
		return netip.Addr{}, errkind.WithHint(errkind.New(api.KindUnavailable, "all addresses of %s are taken", p),
			"delete VMs, or set network.cidr in the configuration to a larger network")
	}
	return free, nil
}
