package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/banger-vm/banger/internal/hostnet/ipam"
	"github.com/banger-vm/banger/internal/hostnet/nat"
	"github.com/banger-vm/banger/internal/preflight"
)

// Check looks whether the host's network is still as guests need it: others change it, too.
func (n *Network) Check(ctx context.Context) (string, []preflight.Problem) {
	const again = "restart the daemon, which makes it right: `banger daemon stop && banger daemon start`; VMs run on"
	var found []preflight.Problem
	if p, ok := n.cfg.bridge().Network(); !ok || p != n.prefix {
		found = append(found, preflight.Problem{Detail: fmt.Sprintf("the bridge %s has not the network %s", n.cfg.Bridge, n.prefix), Fix: again})
	}
	missing, foreign, err := nat.Look(n.cfg.Bridge)
	if err != nil {
		return preflight.Failed(err)
	}
	for _, table := range missing {
		found = append(found, preflight.Problem{Detail: "the packet filter has no table " + table, Fix: again})
	}
	for _, chain := range foreign {
		found = append(found, preflight.Problem{Minor: true, Detail: "the packet filter's chain " + chain + " drops what it does not know, perhaps guests' packets",
			Fix: fmt.Sprintf("let %s through there; docs/NETWORKING.md has recipes", n.cfg.Bridge)})
	}
	if !nat.Forwarding() {
		found = append(found, preflight.Problem{Detail: "IPv4 forwarding was switched off: guests reach nothing outside", Fix: again})
	}
	if err := n.askName(ctx); err != nil {
		found = append(found, preflight.Problem{Detail: fmt.Sprintf("the name server of guests does not answer: %v", err), Fix: again})
	}
	return fmt.Sprintf("bridge %s, guests in %s", n.cfg.Bridge, n.prefix), found
}

// askName asks the name server as a guest would.
func (n *Network) askName(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	server := netip.AddrPortFrom(ipam.Gateway(n.prefix), 53).String()
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server)
	}}
	_, err := r.LookupNetIP(ctx, "ip4", "no-such-guest."+Domain+".")
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return nil // an answer
	}
	return err
}
