// Package publish listens on ports of the host for guests, and carries each connection through the control channel. It needs no
// network in the guest, so it works in every mode of the host's network.
package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/guest"
	"golang.org/x/sys/unix"
)

// Ports are the ports of all VMs. Methods may be called concurrently, those about one VM by one caller at a time.
type Ports struct {
	log *slog.Logger
	use func(id banger.VMID) (done func()) // told of each connection

	mu   sync.Mutex // guards open: VMs start and stop at the same time
	open map[banger.VMID]*listeners
}

// New returns an empty set of ports. use is called for each connection, and what it returns when that ends.
func New(use func(banger.VMID) (done func()), log *slog.Logger) *Ports {
	return &Ports{log: log, use: use, open: map[banger.VMID]*listeners{}}
}

// listeners are the ports of one VM.
type listeners struct {
	name   string
	ls     []net.Listener
	ctx    context.Context // of the connections; ends when the ports close
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Open listens for a VM on all of its ports, and forwards to its guest through link. A port that is taken is of kind busy; then
// none is open. Ports that are open already are closed first.
func (p *Ports) Open(vm banger.VM, link *guest.Link) error {
	p.Close(vm.ID)
	set := &listeners{name: vm.Name}
	set.ctx, set.cancel = context.WithCancel(context.Background())
	for _, pub := range vm.Spec.Publish {
		l, err := p.listen(pub)
		if err != nil {
			set.close()
			return err
		}
		set.ls = append(set.ls, l)
		set.wg.Go(func() { p.serve(set, vm.ID, l, link, pub) })
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[vm.ID] = set
	return nil
}

// Check says whether the ports could be opened now, but for those that the VM with the id has.
func (p *Ports) Check(id banger.VMID, ports []banger.Publish) error {
	p.mu.Lock()
	own := p.open[id]
	p.mu.Unlock()
	seen := map[netip.AddrPort]bool{}
	for _, pub := range ports {
		if seen[pub.Host] {
			return errkind.New(api.KindInvalid, "port %s is published twice", pub.Host)
		}
		seen[pub.Host] = true
		if own.has(pub.Host) {
			continue
		}
		l, err := p.listen(pub)
		if err != nil {
			return err
		}
		l.Close()
	}
	return nil
}

// Close frees the ports of a VM and ends their connections. One that has none is no error.
func (p *Ports) Close(id banger.VMID) {
	p.mu.Lock()
	set := p.open[id]
	delete(p.open, id)
	p.mu.Unlock()
	set.close()
}

// CloseAll frees all ports.
func (p *Ports) CloseAll() {
	p.mu.Lock()
	all := p.open
	p.open = map[banger.VMID]*listeners{}
	p.mu.Unlock()
	for _, set := range all {
		set.close()
	}
}

func (p *Ports) listen(pub banger.Publish) (net.Listener, error) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(pub.Host))
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, unix.EADDRINUSE):
		err = errkind.New(api.KindBusy, "port %s of this host is in use", pub.Host)
		if holder := p.holder(pub.Host); holder != "" {
			return nil, errkind.WithHint(err, "vm %q has it; publish another one, or stop that VM", holder)
		}
		return nil, errkind.WithHint(err, "publish another one; `ss -ltnp` shows who has it")
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return nil, errkind.WithHint(errkind.New(api.KindInvalid, "publish port %s: this host has no such address", pub.Host), "`ip address` shows those it has")
	case errors.Is(err, unix.EACCES):
		return nil, errkind.WithHint(errkind.New(api.KindPermission, "publish port %s: ports below 1024 are root's", pub.Host), "publish a higher one")
	}
	return nil, fmt.Errorf("publish port %s: %w", pub.Host, err)
}

// holder returns the name of the VM that has a port, or nothing.
func (p *Ports) holder(a netip.AddrPort) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, set := range p.open {
		if set.has(a) {
			return set.name
		}
	}
	return ""
}

func (s *listeners) has(a netip.AddrPort) bool {
	if s == nil {
		return false
	}
	for _, l := range s.ls {
		if l.Addr().String() == a.String() {
			return true
		}
	}
	return false
}

func (s *listeners) close() {
	if s == nil {
		return
	}
	s.cancel()
	for _, l := range s.ls {
		l.Close()
	}
	s.wg.Wait()
}

// acceptPause is how long a listener that cannot accept, for want of descriptors, waits.
const acceptPause = 100 * time.Millisecond

func (p *Ports) serve(set *listeners, id banger.VMID, l net.Listener, link *guest.Link, pub banger.Publish) {
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			set.wg.Go(func() { p.forward(set.ctx, id, conn, link, pub) })
		case set.ctx.Err() != nil:
			return
		default:
			p.log.Warn("accept on a published port", "vm", set.name, "port", pub.Host, "err", err)
			select {
			case <-time.After(acceptPause):
			case <-set.ctx.Done():
				return
			}
		}
	}
}

// forward joins a connection with one to the guest's port. A guest that does not take it resets the connection, as the port
// itself would.
func (p *Ports) forward(ctx context.Context, id banger.VMID, conn net.Conn, link *guest.Link, pub banger.Publish) {
	defer conn.Close()
	defer p.use(id)()
	stream, err := p.dial(ctx, link, pub)
	if err != nil {
		p.log.Debug("published port", "port", pub.Host, "err", err)
		if tcp, ok := conn.(*net.TCPConn); ok {
			tcp.SetLinger(0) //nolint:errcheck // then it is closed in order
		}
		return
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close(); stream.Close() })
	defer stop()
	splice(conn, stream)
}

// dialTimeout bounds how long a guest may take to take a connection.
const dialTimeout = 30 * time.Second

func (p *Ports) dial(ctx context.Context, link *guest.Link, pub banger.Publish) (*guest.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := link.Get(ctx)
	if err != nil {
		return nil, err
	}
	to := net.JoinHostPort("localhost", strconv.Itoa(int(pub.Guest)))
	return c.Open(ctx, guestapi.MethodDial, guestapi.Dial{Network: "tcp", Address: to}, nil)
}

// splice copies both ways until both have ended; the end of one direction is passed on as a half-close.
func splice(conn net.Conn, stream *guest.Stream) {
	up := make(chan struct{})
	go func() {
		defer close(up)
		io.Copy(struct{ io.Writer }{stream}, struct{ io.Reader }{conn}) //nolint:errcheck // the end of a connection, however it comes
		stream.CloseWrite()
	}()
	io.Copy(conn, stream) //nolint:errcheck // as above
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite() //nolint:errcheck // as above
	}
	<-up
}
