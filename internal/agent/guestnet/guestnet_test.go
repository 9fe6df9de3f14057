package guestnet

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api/guestapi"
)

// inNewNetwork runs f in a network namespace of its own, with /sys showing that namespace's interfaces.
func inNewNetwork(t *testing.T, f func(t *testing.T, class string)) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: makes a network namespace")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with its namespaces
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Errorf("make mounts private: %v", err)
			return
		}
		if err := unix.Mount("sys", "/sys", "sysfs", 0, ""); err != nil {
			t.Errorf("mount sysfs: %v", err)
			return
		}
		f(t, netClass)
	}()
	<-done
}

func TestUp(t *testing.T) {
	inNewNetwork(t, func(t *testing.T, class string) {
		r, err := openRTNL()
		if err != nil {
			t.Error(err)
			return
		}
		defer r.close()
		// A pair of virtual interfaces stands for the guest's card.
		kind := attr{unix.IFLA_LINKINFO, attr{unix.IFLA_INFO_KIND, []byte("veth")}.append(nil)}
		if err := r.do(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, make([]byte, unix.SizeofIfInfomsg),
			attr{unix.IFLA_IFNAME, []byte("card0\x00")}, kind); err != nil {
			t.Errorf("make a veth: %v", err)
			return
		}
		card, err := net.InterfaceByName("card0")
		if err != nil {
			t.Error(err)
			return
		}
		n := &guestapi.Net{MAC: strings.ToUpper(card.HardwareAddr.String()), Address: "10.0.2.15/24", Gateway: "10.0.2.2", MTU: 1400}
		for range 2 { // it may be repeated
			if err := Up(n); err != nil {
				t.Error(err)
				return
			}
		}
		check(t, "10.0.2.15/24")
		if err := Up(&guestapi.Net{MAC: n.MAC, Address: "fd00::2/64", Gateway: "fd00::1"}); err != nil {
			t.Error(err)
		}
		check(t, "fd00::2/64")
		if err := Up(&guestapi.Net{MAC: "52:54:00:00:00:01", Address: "10.0.2.15/24"}); err == nil {
			t.Error("an unknown hardware address is an error")
		}
	})
}

func check(t *testing.T, address string) {
	t.Helper()
	card, err := net.InterfaceByName("card0")
	if err != nil {
		t.Error(err)
		return
	}
	if card.MTU != 1400 || card.Flags&net.FlagUp == 0 {
		t.Errorf("the card has MTU %d and flags %v", card.MTU, card.Flags)
	}
	addrs, _ := card.Addrs()
	for _, a := range addrs {
		if a.String() == address {
			return
		}
	}
	t.Errorf("the card has %v, not %s", addrs, address)
}

func TestBroadcast(t *testing.T) {
	for in, want := range map[string]string{"10.0.2.15/24": "10.0.2.255", "172.16.5.1/20": "172.16.15.255", "10.0.0.1/30": "10.0.0.3"} {
		ip, _ := netip.AddrFromSlice(broadcast(netip.MustParsePrefix(in)))
		if ip.String() != want {
			t.Errorf("broadcast of %s is %s, want %s", in, ip, want)
		}
	}
}

func TestResolvConf(t *testing.T) {
	got := ResolvConf(&guestapi.Net{DNS: []string{"10.0.2.3", "fd00::3"}, Search: "vm"})
	if want := Mark + "search vm\nnameserver 10.0.2.3\nnameserver fd00::3\n"; got != want {
		t.Errorf("resolv.conf is %q, want %q", got, want)
	}
}
