// Package tappool owns the taps of guests: network interfaces whose other end a VMM holds. A few idle ones wait on the bridge,
// so that a start does not wait for the kernel to make one.
//
// A tap in use is named after its VM ([Name]), so a crash loses no name. Only idle taps are anonymous; one is renamed when a VM
// takes it. Every tap bears the bridge's mark before it is made to last, so a crash leaves none that nobody knows.
//
// Taps are born isolated (IFLA_BRPORT_ISOLATED): the bridge passes nothing between two isolated ports.
package tappool

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/hostnet/bridge"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The names of taps. IFNAMSIZ leaves 15 bytes, which the prefix and an id of a VM fill.
const (
	prefix     = "bg-"
	idlePrefix = "bgi-"
)

// Name is the name of the tap of the VM with that id.
func Name(id banger.VMID) string { return prefix + string(id) }

// Owner is the inverse of Name.
func Owner(name string) (id banger.VMID, ok bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	return banger.VMID(rest), ok
}

// Pool hands out the taps of one bridge. Its methods may be called concurrently; those about one VM by one caller at a time.
type Pool struct {
	bridge bridge.Bridge
	index  int // of the bridge
	log    *slog.Logger
	idle   chan string   // names of idle taps; its capacity is the pool's size
	low    chan struct{} // tells Run that one was taken
}

// New returns a pool of size idle taps for a bridge, whose index is given. They are made by [Pool.Run].
func New(b bridge.Bridge, index, size int, log *slog.Logger) *Pool {
	return &Pool{bridge: b, index: index, log: log, idle: make(chan string, size), low: make(chan struct{}, 1)}
}

// Adopt takes over what an earlier daemon left: idle taps go into the pool as far as there is room, and taps of VMs that keep
// does not want are removed.
func (p *Pool) Adopt(keep func(banger.VMID) bool) error {
	return p.bridge.CleanUp(func(link string) bool {
		if id, ok := Owner(link); ok {
			return keep(id)
		}
		if !strings.HasPrefix(link, idlePrefix) || !p.whole(link) {
			return false
		}
		select {
		case p.idle <- link:
			return true
		default:
			return false
		}
	})
}

// whole reports whether an idle tap came as far as the bridge before a crash.
func (p *Pool) whole(name string) bool {
	link, err := netlink.LinkByName(name)
	return err == nil && link.Attrs().MasterIndex == p.index
}

// Idle is how many taps wait.
func (p *Pool) Idle() int { return len(p.idle) }

// Run keeps the pool full until ctx ends. Idle taps stay for the next daemon.
func (p *Pool) Run(ctx context.Context) {
	for {
		pause := time.Duration(0)
		for pause == 0 && len(p.idle) < cap(p.idle) && ctx.Err() == nil {
			name, err := p.make()
			if err != nil {
				p.log.Warn("fill the pool of taps", "err", err)
				pause = refillPause
				continue
			}
			p.idle <- name // nobody else puts one in
		}
		var again <-chan time.Time
		if pause > 0 {
			again = time.After(pause)
		}
		select {
		case <-p.low:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// refillPause is how long a pool that could not make a tap waits before it tries again.
const refillPause = 10 * time.Second

// Take gives a VM its tap, up and on the bridge, and returns its name. An isolated one reaches no other isolated one. What an
// earlier start of the VM left under that name is replaced, also when a VMM still holds it: opening the old one would be EBUSY.
func (p *Pool) Take(id banger.VMID, isolated bool) (string, error) {
	name := Name(id)
	if err := p.Release(id); err != nil {
		return "", err
	}
	link, err := p.take()
	if err != nil {
		return "", fmt.Errorf("take tap %s: %w", name, err)
	}
	for _, do := range []func() error{
		func() error { return netlink.LinkSetName(link, name) },
		func() error { return netlink.LinkSetIsolated(link, isolated) },
		func() error { return netlink.LinkSetUp(link) },
	} {
		if err := do(); err != nil {
			return "", errors.Join(fmt.Errorf("take tap %s: %w", name, err), bridge.Delete(link))
		}
	}
	return name, nil
}

// take returns an idle tap, or makes one where none is.
func (p *Pool) take() (netlink.Link, error) {
	for {
		var name string
		var err error
		select {
		case name = <-p.idle:
			p.refill()
		default:
			if name, err = p.make(); err != nil {
				return nil, err
			}
		}
		link, err := bridge.Find(name)
		if err != nil || link != nil {
			return link, err
		}
		p.log.Warn("an idle tap is gone", "tap", name)
	}
}

func (p *Pool) refill() {
	select {
	case p.low <- struct{}{}:
	default:
	}
}

// Release removes the tap of a VM. One that is not there is no error; a link of that name that is not ours is left alone and of
// kind precondition.
func (p *Pool) Release(id banger.VMID) error {
	name := Name(id)
	link, err := bridge.Find(name)
	if err != nil {
		return fmt.Errorf("release tap %s: %w", name, err)
	}
	if link == nil {
		return nil
	}
	if link.Attrs().Alias != p.bridge.Mark() {
		return errkind.WithHint(errkind.New(api.KindPrecondition, "release tap %s: that link is not this banger's", name), "remove it: `ip link delete %s`", name)
	}
	return bridge.Delete(link)
}

// make returns the name of a new idle tap. Until the last step the kernel removes it with its descriptor.
func (p *Pool) make() (string, error) {
	var b [4]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	name := idlePrefix + hex.EncodeToString(b[:])
	fd, err := openTap(name)
	if err != nil {
		return "", fmt.Errorf("create tap: %w", err)
	}
	defer unix.Close(fd)
	link, err := netlink.LinkByName(name)
	if err != nil {
		return "", fmt.Errorf("create tap: %w", err)
	}
	for _, do := range []func() error{
		func() error { return netlink.LinkSetAlias(link, p.bridge.Mark()) },
		func() error { return netlink.LinkSetMasterByIndex(link, p.index) },
		func() error { return netlink.LinkSetIsolated(link, true) },
		func() error { return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1) },
	} {
		if err := do(); err != nil {
			return "", fmt.Errorf("create tap: %w", err)
		}
	}
	return name, nil
}

// openTap creates a tap (Documentation/networking/tuntap.rst).
func openTap(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
