// Package dnsserver is the name server of guests and of the host. It answers for the domain of VMs itself (A, and PTR in the
// guests' network), and forwards what guests ask besides to the host's name servers, with a cache.
//
// Who asks is known by the address, which the packet filter keeps guests from forging: a guest without NAT is told nothing of the
// world outside, because names carry data as well as packets do; and the host is not served as a forwarder, because it would
// ask itself.
package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// ttl is how long others may remember a VM's address, in seconds: names are used again, with other addresses.
const ttl = 5

// Config is what a server works with.
type Config struct {
	Domain    string       // of VMs, without dots at its ends
	Network   netip.Prefix // of guests
	Upstreams Upstreams    // where other names are known
	Log       *slog.Logger
}

// Guest is a VM that has a name.
type Guest struct {
	Name    string
	Addr    netip.Addr
	Forward bool // it may look up names of the world
}

// zone is what is known of VMs at one moment. It is never changed, only replaced.
type zone struct {
	byName map[string]Guest
	byAddr map[netip.Addr]Guest
}

// Server is a name server. Its methods may be called concurrently.
type Server struct {
	cfg     Config
	apex    string // the domain as DNS writes it
	forward *forwarder
	zone    atomic.Pointer[zone]

	mu      sync.Mutex // guards guests, and lets zones be replaced in the order of their changes
	guests  map[banger.VMID]Guest
	servers []*dns.Server // set before Serve
}

// New returns a server that knows no VM yet and listens nowhere.
func New(cfg Config) (*Server, error) {
	if _, ok := dns.IsDomainName(cfg.Domain); !ok {
		return nil, errkind.New(api.KindInvalid, "%q is no domain", cfg.Domain)
	}
	s := &Server{cfg: cfg, apex: dns.CanonicalName(cfg.Domain), forward: newForwarder(cfg.Upstreams), guests: map[banger.VMID]Guest{}}
	s.zone.Store(&zone{})
	return s, nil
}

// Put makes a VM known, or replaces what was known of it.
func (s *Server) Put(id banger.VMID, g Guest) {
	s.change(func(all map[banger.VMID]Guest) { all[id] = g })
}

// Drop forgets a VM. One that is not known is no error.
func (s *Server) Drop(id banger.VMID) {
	s.change(func(all map[banger.VMID]Guest) { delete(all, id) })
}

func (s *Server) change(edit func(map[banger.VMID]Guest)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := maps.Clone(s.guests)
	edit(next)
	s.guests = next
	z := &zone{byName: map[string]Guest{}, byAddr: map[netip.Addr]Guest{}}
	for _, g := range next {
		z.byName[g.Name], z.byAddr[g.Addr] = g, g
	}
	s.zone.Store(z)
}

// Listen opens the addresses, each for UDP and TCP. On error none is open. A port that is taken is of kind busy.
func (s *Server) Listen(addrs ...netip.AddrPort) error {
	for _, a := range addrs {
		if err := s.listen(a); err != nil {
			s.Close()
			err = fmt.Errorf("listen for names on %s: %w", a, err)
			if errors.Is(err, unix.EADDRINUSE) {
				return errkind.WithHint(errkind.Wrap(api.KindBusy, err),
					"another name server has that port (`ss -lntup` shows which): let it leave the address out, or set network.dns in the configuration")
			}
			return err
		}
	}
	return nil
}

func (s *Server) listen(a netip.AddrPort) error {
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(a))
	if err != nil {
		return err
	}
	s.servers = append(s.servers, &dns.Server{PacketConn: udp, Handler: s, UDPSize: 4096})
	tcp, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(a))
	if err != nil {
		return err
	}
	s.servers = append(s.servers, &dns.Server{Listener: tcp, Handler: s})
	return nil
}

// Serve answers until ctx ends, then closes.
func (s *Server) Serve(ctx context.Context) {
	var wg sync.WaitGroup
	for _, srv := range s.servers {
		wg.Go(func() {
			if err := srv.ActivateAndServe(); err != nil && ctx.Err() == nil {
				s.cfg.Log.Error("serve names", "err", err)
			}
		})
	}
	<-ctx.Done()
	s.Close()
	wg.Wait()
}

// Close closes what Listen opened.
func (s *Server) Close() {
	for _, srv := range s.servers {
		if srv.PacketConn != nil {
			srv.PacketConn.Close()
		}
		if srv.Listener != nil {
			srv.Listener.Close()
		}
	}
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	answer := s.answer(source(w.RemoteAddr()), q)
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		answer.Truncate(udpSize(q))
	}
	if err := w.WriteMsg(answer); err != nil {
		s.cfg.Log.Debug("answer a name", "err", err)
	}
}

// udpSize is how large an answer over UDP the asker takes (RFC 6891, 6.2.3).
func udpSize(q *dns.Msg) int {
	if opt := q.IsEdns0(); opt != nil {
		return max(int(opt.UDPSize()), dns.MinMsgSize)
	}
	return dns.MinMsgSize
}

func source(a net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

func (s *Server) answer(from netip.Addr, q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	if q.Opcode != dns.OpcodeQuery || len(q.Question) != 1 || q.Question[0].Qclass != dns.ClassINET {
		return m.SetRcode(q, dns.RcodeNotImplemented)
	}
	question := q.Question[0]
	name := dns.CanonicalName(question.Name)
	z := s.zone.Load()
	switch {
	case dns.IsSubDomain(s.apex, name):
		s.byName(z, m, name, question)
	case s.pointer(z, m, name, question):
	case z.byAddr[from].Forward:
		return s.forward.exchange(q)
	default:
		m.Rcode = dns.RcodeRefused
	}
	return m
}

// byName answers for a name in the domain of VMs.
func (s *Server) byName(z *zone, m *dns.Msg, name string, q dns.Question) {
	m.Authoritative = true
	g, known := z.byName[strings.TrimSuffix(name, "."+s.apex)]
	switch {
	case known && q.Qtype == dns.TypeA:
		m.Answer = []dns.RR{&dns.A{Hdr: header(q, dns.TypeA), A: g.Addr.AsSlice()}}
		return
	case !known && name != s.apex:
		m.Rcode = dns.RcodeNameError
	}
	m.Ns = []dns.RR{s.authority()} // so that the absence is remembered no longer than a presence (RFC 2308)
}

// pointer answers for an address of the guests' network, and reports whether name is one.
func (s *Server) pointer(z *zone, m *dns.Msg, name string, q dns.Question) bool {
	addr, ok := reverse(name)
	if !ok || !s.cfg.Network.Contains(addr) {
		return false
	}
	m.Authoritative = true
	g, known := z.byAddr[addr]
	if known && q.Qtype == dns.TypePTR {
		m.Answer = []dns.RR{&dns.PTR{Hdr: header(q, dns.TypePTR), Ptr: g.Name + "." + s.apex}}
		return true
	}
	if !known {
		m.Rcode = dns.RcodeNameError
	}
	m.Ns = []dns.RR{s.authority()}
	return true
}

// reverse reads an address from a name below in-addr.arpa (RFC 1035, 3.5).
func reverse(name string) (netip.Addr, bool) {
	digits, ok := strings.CutSuffix(name, ".in-addr.arpa.")
	parts := strings.Split(digits, ".")
	if !ok || len(parts) != 4 {
		return netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
	return addr, err == nil
}

func header(q dns.Question, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: q.Name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

func (s *Server) authority() dns.RR {
	return &dns.SOA{Hdr: dns.RR_Header{Name: s.apex, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl}, Ns: s.apex,
		Mbox: "nobody.invalid.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl}
}
