// Package nat owns what guests may reach: two nftables tables and the host's forwarding.
//
// # Rules
//
// Table `inet banger` is about packets that the host routes: it masquerades those of guests with NAT on their way out, lets
// answers come back, and keeps guests from the host itself, but for its name server. Table `bridge banger` is about frames on
// the bridge: a guest's frames must bear the addresses that it was given, and reach another guest only in the same group. There a
// guest is known by its tap, which it cannot forge. The rules never change; who is meant is in sets.
//
// # Desired state
//
// [Filter.Put], [Filter.Drop] and [Filter.Set] replace both tables in one transaction: a packet sees the rules before or after,
// and connections go on. What a crash left is replaced by the next transaction.
package nat

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/banger-vm/banger/internal/banger"
	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Guest is what the rules must know of a VM.
type Guest struct {
	Tap   string
	MAC   net.HardwareAddr
	Addr  netip.Addr
	NAT   bool   // it reaches out
	Group string // those of one group reach each other; empty: nobody
}

// Filter keeps the tables of one bridge. Its methods may be called concurrently.
type Filter struct {
	bridge  string
	network netip.Prefix
	// guests is taken out while the kernel's tables are made like it, so that no older state overwrites a newer one.
	guests chan map[banger.VMID]Guest
}

// New returns the filter of a bridge, on which guests have addresses in network. It changes nothing yet.
func New(bridge string, network netip.Prefix) *Filter {
	f := &Filter{bridge: bridge, network: network, guests: make(chan map[banger.VMID]Guest, 1)}
	f.guests <- nil
	return f
}

// Table is the name of the tables for a bridge.
func Table(bridge string) string {
	if bridge == "banger0" {
		return "banger"
	}
	return "banger-" + bridge
}

// Set makes the rules right for exactly these guests.
func (f *Filter) Set(ctx context.Context, guests map[banger.VMID]Guest) error {
	return f.change(ctx, func(map[banger.VMID]Guest) map[banger.VMID]Guest { return maps.Clone(guests) })
}

// Put adds a guest, or replaces what was known of it.
func (f *Filter) Put(ctx context.Context, id banger.VMID, g Guest) error {
	return f.change(ctx, func(all map[banger.VMID]Guest) map[banger.VMID]Guest {
		next := map[banger.VMID]Guest{id: g}
		for other, o := range all {
			if other != id {
				next[other] = o
			}
		}
		return next
	})
}

// Drop forgets a guest. One that is not known is no error.
func (f *Filter) Drop(ctx context.Context, id banger.VMID) error {
	return f.change(ctx, func(all map[banger.VMID]Guest) map[banger.VMID]Guest {
		next := maps.Clone(all)
		delete(next, id)
		return next
	})
}

// change applies what edit makes of the guests, and remembers it when the kernel took it. edit does not change its argument.
func (f *Filter) change(ctx context.Context, edit func(map[banger.VMID]Guest) map[banger.VMID]Guest) error {
	var now map[banger.VMID]Guest
	select {
	case now = <-f.guests:
	case <-ctx.Done():
		return fmt.Errorf("change packet filter: %w", context.Cause(ctx))
	}
	next := edit(now)
	err := f.apply(slices.SortedFunc(maps.Values(next), func(a, b Guest) int { return cmp.Compare(a.Tap, b.Tap) }))
	if err != nil {
		next = now
	}
	f.guests <- next
	if err != nil {
		return fmt.Errorf("change packet filter of %s: %w", f.bridge, err)
	}
	return nil
}

// apply replaces the tables.
func (f *Filter) apply(guests []Guest) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	inet, frames := f.tables()
	for _, t := range []*nftables.Table{inet, frames} {
		c.AddTable(t) // so that deleting it cannot fail
		c.DelTable(t)
		c.AddTable(t)
	}
	if err := errors.Join(f.routed(c, inet, guests), f.bridged(c, frames, guests)); err != nil {
		return err
	}
	return c.Flush()
}

func (f *Filter) tables() (inet, frames *nftables.Table) {
	name := Table(f.bridge)
	return &nftables.Table{Name: name, Family: nftables.TableFamilyINet}, &nftables.Table{Name: name, Family: nftables.TableFamilyBridge}
}

// Remove removes the tables of a bridge. It may be repeated.
func Remove(bridge string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("remove packet filter: %w", err)
	}
	inet, frames := New(bridge, netip.Prefix{}).tables()
	for _, t := range []*nftables.Table{inet, frames} {
		c.AddTable(t)
		c.DelTable(t)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove packet filter: %w", err)
	}
	return nil
}

// Probe returns why the packet filter cannot be used here, or nil.
func Probe() error {
	c, err := nftables.New()
	if err == nil {
		_, err = c.ListTablesOfFamily(nftables.TableFamilyINet)
	}
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// ifname is an interface's name as the kernel compares it (IFNAMSIZ).
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
