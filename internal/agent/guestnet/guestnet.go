// Package guestnet gives the guest's one interface its addresses. It speaks rtnetlink itself, in a few messages, because it needs
// no tool in the guest and runs in every boot.
package guestnet

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/api/guestapi"
)

// loopback is the index of lo, the first interface of every network namespace.
const loopback = 1

// netClass is where the kernel lists interfaces (Documentation/ABI/testing/sysfs-class-net).
const netClass = "/sys/class/net"

// Up brings up loopback, and the interface that n describes unless n is nil; without an address it has none. It may be repeated.
func Up(n *guestapi.Net) error {
	r, err := openRTNL()
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.setUp(loopback, 0); err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	if n == nil {
		return nil
	}
	name, index, err := byMAC(netClass, n.MAC)
	if err != nil {
		return err
	}
	if n.Address == "" {
		return r.setUp(index, n.MTU)
	}
	address, err := netip.ParsePrefix(n.Address)
	if err != nil {
		return err
	}
	if err := r.addAddress(index, address); err != nil {
		return fmt.Errorf("add address %s to %s: %w", address, name, err)
	}
	if err := r.setUp(index, n.MTU); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	if n.Gateway == "" {
		return nil
	}
	gateway, err := netip.ParseAddr(n.Gateway)
	if err != nil {
		return err
	}
	if err := r.addDefault(index, gateway); err != nil {
		return fmt.Errorf("add default route by %s through %s: %w", gateway, name, err)
	}
	return nil
}

// SetMAC gives the interface with the hardware address old another one.
func SetMAC(old, mac string) error {
	address, err := net.ParseMAC(mac)
	if err != nil {
		return err
	}
	name, index, err := byMAC(netClass, old)
	if err != nil {
		return err
	}
	r, err := openRTNL()
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.setMAC(index, address); err != nil {
		return fmt.Errorf("set the address of %s to %s: %w", name, mac, err)
	}
	return nil
}

// byMAC finds the interface with the hardware address mac.
func byMAC(class, mac string) (name string, index int, err error) {
	entries, err := os.ReadDir(class)
	if err != nil {
		return "", 0, err
	}
	for _, e := range entries {
		dir := filepath.Join(class, e.Name())
		b, err := os.ReadFile(filepath.Join(dir, "address"))
		if err != nil || !strings.EqualFold(strings.TrimSpace(string(b)), mac) {
			continue
		}
		b, err = os.ReadFile(filepath.Join(dir, "ifindex"))
		if err != nil {
			return "", 0, err
		}
		index, err := strconv.Atoi(strings.TrimSpace(string(b)))
		return e.Name(), index, err
	}
	return "", 0, fmt.Errorf("no interface has the address %q", mac)
}

// ResolvConf is the text of resolv.conf(5) for n.
func ResolvConf(n *guestapi.Net) string {
	var b strings.Builder
	b.WriteString(Mark)
	if n.Search != "" {
		fmt.Fprintf(&b, "search %s\n", n.Search)
	}
	for _, ip := range n.DNS {
		fmt.Fprintf(&b, "nameserver %s\n", ip)
	}
	return b.String()
}

// Mark is the first line of every file in the guest's /etc that the agent made and may replace.
const Mark = "# written by banger at boot\n"
