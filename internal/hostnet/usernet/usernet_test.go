package usernet

import (
	"net/netip"
	"testing"
)

func TestGuest(t *testing.T) {
	t.Run("router and DNS are in the guest's network and are not the guest", func(t *testing.T) {
		n := Guest("52:54:00:12:34:56")
		prefix, err := netip.ParsePrefix(n.Address)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range append([]string{n.Gateway}, n.DNS...) {
			addr, err := netip.ParseAddr(a)
			if err != nil || !prefix.Contains(addr) || addr == prefix.Addr() {
				t.Errorf("address %s in %s: %v", a, prefix, err)
			}
		}
		if n.MAC != "52:54:00:12:34:56" {
			t.Errorf("MAC %s", n.MAC)
		}
	})
}
