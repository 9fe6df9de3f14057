package hostnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/hostnet/bridge"
	"github.com/banger-vm/banger/internal/hostnet/hostnettest"
	"github.com/banger-vm/banger/internal/hostnet/nat"
	"github.com/banger-vm/banger/internal/hostnet/tappool"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func config(t *testing.T) Config {
	return Config{
		Bridge: "banger0", Owner: "test", CIDR: "10.209.0.0/16", DNS: netip.MustParseAddrPort("127.0.0.1:42069"),
		Forward: filepath.Join(t.TempDir(), "ip_forward"), Log: slog.New(slog.DiscardHandler),
	}
}

func guestVM(n byte, group string, nat bool) banger.VM {
	id := strings.Repeat(string('a'+rune(n)), 12)
	return banger.VM{
		ID: banger.VMID(id), Name: "vm" + id[:1], State: banger.Running,
		Network: netip.MustParsePrefix("10.209.0.0/16"), Address: netip.AddrFrom4([4]byte{10, 209, 0, 2 + n}),
		Spec: banger.Spec{MAC: "52:aa:aa:aa:aa:a" + string('0'+rune(n)), NAT: nat, Group: group},
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, cfg Config, live ...banger.VM) *Network {
	t.Helper()
	n, err := Open(t.Context(), cfg, live)
	must(t, err)
	return n
}

func attach(t *testing.T, n *Network, vm banger.VM) {
	t.Helper()
	_, _, err := n.AttachTap(vm)
	must(t, err, n.AttachFilter(t.Context(), vm))
	n.AttachName(vm)
}

func detach(t *testing.T, n *Network, vm banger.VM) {
	t.Helper()
	n.DetachName(vm)
	must(t, n.DetachFilter(t.Context(), vm), n.DetachTap(vm))
}

func TestSteps(t *testing.T) {
	hostnettest.Own(t)
	cfg := config(t)
	a, b, c := guestVM(0, "", true), guestVM(1, "shop", false), guestVM(2, "shop", true)
	hostnettest.Golden(t, "0-before")
	n := open(t, cfg)
	hostnettest.Golden(t, "1-open")
	attach(t, n, a)
	hostnettest.Golden(t, "2-one-guest")
	attach(t, n, b)
	attach(t, n, c)
	attach(t, n, c) // all may be repeated
	hostnettest.Golden(t, "3-a-group")
	must(t, n.Close(true))
	hostnettest.Golden(t, "3-a-group") // guests of a daemon that is away
	n = open(t, cfg, a, b, c)
	hostnettest.Golden(t, "3-a-group")
	detach(t, n, b)
	detach(t, n, c)
	detach(t, n, c)
	hostnettest.Golden(t, "2-one-guest")
	detach(t, n, a)
	hostnettest.Golden(t, "1-open")
	must(t, n.Close(false))
	hostnettest.Golden(t, "0-before")
}

func TestLeftovers(t *testing.T) {
	hostnettest.Own(t)
	cfg := config(t)
	t.Run("what VMs that are gone left is removed, and the rest stays", func(t *testing.T) {
		a, b := guestVM(0, "", true), guestVM(1, "shop", false)
		n := open(t, cfg)
		attach(t, n, a)
		attach(t, n, b)
		must(t, n.Close(true))
		n = open(t, cfg, a)
		hostnettest.Golden(t, "2-one-guest")
		must(t, n.Close(false))
	})
	t.Run("links of another banger are left alone", func(t *testing.T) {
		n := open(t, cfg)
		attach(t, n, guestVM(0, "", true))
		other := cfg
		other.Owner = "other"
		if _, err := Open(t.Context(), other, nil); !errkind.Is(err, api.KindPrecondition) || !strings.Contains(errkind.Hint(err), "network.bridge") {
			t.Errorf("got %v, hint %q", err, errkind.Hint(err))
		}
		if err := Remove(other); !errkind.Is(err, api.KindPrecondition) {
			t.Errorf("got %v", err)
		}
		hostnettest.Golden(t, "2-one-guest")
		must(t, n.Close(false))
	})
	t.Run("a bridge that a crash left without its mark is known again", func(t *testing.T) {
		b := cfg.bridge()
		_, err := b.Set(netip.MustParsePrefix("10.209.0.0/16"))
		link, findErr := netlink.LinkByName(b.Name)
		must(t, err, findErr, netlink.LinkSetAlias(link, ""))
		n := open(t, cfg)
		hostnettest.Golden(t, "1-open")
		must(t, n.Close(false))
	})
}

// stale makes a tap with an address in the guests' network.
func stale(t *testing.T, name, alias string) netlink.Link {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link := &netlink.Tuntap{LinkAttrs: attrs, Mode: netlink.TUNTAP_MODE_TAP}
	addr, err := netlink.ParseAddr("10.209.0.1/16")
	must(t, err, netlink.LinkAdd(link), netlink.LinkSetAlias(link, alias), netlink.AddrAdd(link, addr), netlink.LinkSetUp(link))
	t.Cleanup(func() { bridge.Delete(link) }) //nolint:errcheck // the test may have removed it
	return link
}

// A field report of LESSONS: with two links in one subnet the kernel sends answers to the older one, where nobody is.
func TestStaleTapWithTheSameSubnetEatsNoPackets(t *testing.T) {
	hostnettest.Own(t)
	cfg := config(t)
	t.Run("ours is removed", func(t *testing.T) {
		stale(t, "bg-0123456789ab", cfg.bridge().Mark())
		n := open(t, cfg)
		hostnettest.Golden(t, "1-open")
		must(t, n.Close(false))
	})
	t.Run("a stranger's is named in the error, and left alone", func(t *testing.T) {
		link := stale(t, "old0", "")
		_, err := Open(t.Context(), cfg, nil)
		if !errkind.Is(err, api.KindPrecondition) || !strings.Contains(err.Error(), "old0") || errkind.Hint(err) == "" {
			t.Errorf("got %v, hint %q", err, errkind.Hint(err))
		}
		if found, err := bridge.Find("old0"); err != nil || found == nil {
			t.Errorf("it is gone: %v", err)
		}
		must(t, bridge.Delete(link))
	})
	t.Run("a network that is chosen is another one", func(t *testing.T) {
		link := stale(t, "old0", "")
		auto := cfg
		auto.CIDR = "auto"
		n := open(t, auto)
		if n.Prefix().String() != "10.217.0.0/16" {
			t.Errorf("chose %s", n.Prefix())
		}
		must(t, n.Close(true), bridge.Delete(link))
		n = open(t, auto)
		if n.Prefix().String() != "10.217.0.0/16" {
			t.Errorf("then chose %s: guests' addresses would be wrong", n.Prefix())
		}
		must(t, n.Close(false))
	})
}

// A field report of LESSONS: a VMM that has not let go yet makes the next one's TUNSETIFF fail.
func TestTapSlotReusedBeforeItsOldOwnerLetGoIsNotBusy(t *testing.T) {
	hostnettest.Own(t)
	cfg := config(t)
	n := open(t, cfg)
	vm := guestVM(0, "", true)
	use := func() int {
		tap, _, err := n.AttachTap(vm)
		must(t, err)
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		must(t, err)
		req, err := unix.NewIfreq(tap)
		must(t, err)
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR) // as QEMU does
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			t.Fatalf("open tap %s: %v", tap, err)
		}
		return fd
	}
	first := use()
	second := use()
	must(t, unix.Close(first))
	if found, err := bridge.Find(tappool.Name(vm.ID)); err != nil || found == nil {
		t.Errorf("the late end of the old owner took the new tap: %v", err)
	}
	must(t, unix.Close(second))
	detach(t, n, vm)
	must(t, n.Close(false))
}

// Lessons 1 and 2: clean-up needs nothing but the VM's id, so a crash at any moment leaves nothing that cannot be found.
func TestCleanUpNeedsOnlyTheID(t *testing.T) {
	hostnettest.Own(t)
	cfg := config(t)
	n := open(t, cfg)
	vm := guestVM(0, "shop", true)
	attach(t, n, vm)
	detach(t, n, banger.VM{ID: vm.ID})
	must(t, n.Close(true))
	n = open(t, cfg)
	hostnettest.Golden(t, "1-open")
	must(t, n.Close(false))
}

func TestForwardingIsRestoredOnlyIfWeSetIt(t *testing.T) {
	hostnettest.Own(t)
	cfg := config(t)
	sysctl := func(v string) { must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte(v), 0)) }
	sysctl("1")
	n := open(t, cfg)
	must(t, n.Close(false))
	if got := hostnettest.Show(t); !strings.Contains(got, "ip_forward 1") {
		t.Errorf("switched off what was on before:\n%s", got)
	}
	sysctl("0")
}

func TestCheckFindsWhatOthersChanged(t *testing.T) {
	hostnettest.Own(t)
	cfg := config(t)
	n := open(t, cfg)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() { defer close(served); n.Run(ctx) }()
	look := func(want ...string) {
		t.Helper()
		_, found := n.Check(t.Context())
		var got []string
		for _, p := range found {
			got = append(got, p.Detail)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("want -, got +:\n%s", d)
		}
	}
	look()
	nft := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("nft", args...).CombinedOutput(); err != nil {
			t.Fatalf("nft %v: %v\n%s", args, err, out)
		}
	}
	nft("add table ip docker; add chain ip docker FORWARD { type filter hook forward priority 0; policy drop; }")
	look("the packet filter's chain docker FORWARD drops what it does not know, perhaps guests' packets")
	nft("delete table ip docker; delete table bridge banger")
	look("the packet filter has no table bridge banger")
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0), nat.Remove(cfg.Bridge))
	look("the packet filter has no table inet banger", "the packet filter has no table bridge banger",
		"IPv4 forwarding was switched off: guests reach nothing outside")
	stop()
	<-served
	if _, found := n.Check(t.Context()); !strings.Contains(found[len(found)-1].Detail, "the name server of guests does not answer") {
		t.Errorf("found %+v", found)
	}
	must(t, n.Close(false))
}

// BenchmarkTapTake measures a tap from a pool that has one.
func BenchmarkTapTake(b *testing.B) {
	hostnettest.Own(b)
	br := bridge.Bridge{Name: "banger0", Owner: "test"}
	index, err := br.Set(netip.MustParsePrefix("10.209.0.0/16"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { br.Remove() }) //nolint:errcheck // Own tells what is left
	pool := tappool.New(br, index, 8, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); pool.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	id := guestVM(0, "", true).ID
	for b.Loop() {
		b.StopTimer()
		if err := pool.Release(id); err != nil {
			b.Fatal(err)
		}
		for pool.Idle() == 0 {
			runtime.Gosched()
		}
		b.StartTimer()
		if _, err := pool.Take(id, true); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFilter100 replaces the packet filter for a hundred guests, half of them in ten groups, in one transaction.
func BenchmarkFilter100(b *testing.B) {
	hostnettest.Own(b)
	f := nat.New("banger0", netip.MustParsePrefix("10.209.0.0/16"))
	b.Cleanup(func() { nat.Remove("banger0") }) //nolint:errcheck // Own tells what is left
	guests := map[banger.VMID]nat.Guest{}
	for i := range 100 {
		id := banger.VMID(fmt.Sprintf("%012x", i))
		g := nat.Guest{Tap: tappool.Name(id), MAC: net.HardwareAddr{0x52, 0, 0, 0, 0, byte(i)}, Addr: netip.AddrFrom4([4]byte{10, 209, 1, byte(i)}), NAT: true}
		if i%2 == 0 {
			g.Group = fmt.Sprintf("g%d", i%20)
		}
		guests[id] = g
	}
	for b.Loop() {
		if err := f.Set(b.Context(), guests); err != nil {
			b.Fatal(err)
		}
	}
}
