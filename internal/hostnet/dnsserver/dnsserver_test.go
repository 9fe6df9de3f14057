package dnsserver

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/miekg/dns"
)

// local is where the tests' servers listen: a free port.
var local = netip.MustParseAddrPort("127.0.0.1:0")

// serve returns a server on a free port that knows the VM web and takes the test for the VM asker, and that server's address.
func serve(t testing.TB, forward bool, upstreams ...string) (*Server, string) {
	t.Helper()
	s, err := New(Config{
		Domain: "vm", Network: netip.MustParsePrefix("10.209.0.0/16"), Upstreams: func() []string { return upstreams },
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Put("aaaaaaaaaaaa", Guest{Name: "web", Addr: netip.MustParseAddr("10.209.0.2")})
	s.Put("bbbbbbbbbbbb", Guest{Name: "asker", Addr: netip.MustParseAddr("127.0.0.1"), Forward: forward})
	port := freePort(t)
	if err := s.Listen(port); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s, port.String()
}

// freePort returns a port that is free for UDP and TCP.
func freePort(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(local))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

func query(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(name, qtype)
}

func exchange(t testing.TB, network, server string, q *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Net: network, UDPSize: dns.MinMsgSize}
	m, _, err := c.Exchange(q, server)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func show(m *dns.Msg) string {
	out := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		out = append(out, strings.Join(strings.Fields(rr.String()), " "))
	}
	return strings.Join(out, "; ")
}

func TestNames(t *testing.T) {
	s, server := serve(t, false)
	for _, tt := range []struct {
		what, name string
		qtype      uint16
		want       string
	}{
		{"a VM has an address", "web.vm.", dns.TypeA, "NOERROR; web.vm. 5 IN A 10.209.0.2"},
		{"in whatever case it is asked for", "WEB.Vm.", dns.TypeA, "NOERROR; WEB.Vm. 5 IN A 10.209.0.2"},
		{"a VM has no IPv6 address, but exists", "web.vm.", dns.TypeAAAA, "NOERROR"},
		{"a name that no VM has does not exist", "db.vm.", dns.TypeA, "NXDOMAIN"},
		{"nor does one below a VM's", "x.web.vm.", dns.TypeA, "NXDOMAIN"},
		{"the domain itself exists", "vm.", dns.TypeSOA, "NOERROR"},
		{"an address has a name", "2.0.209.10.in-addr.arpa.", dns.TypePTR, "NOERROR; 2.0.209.10.in-addr.arpa. 5 IN PTR web.vm."},
		{"a free address has none", "3.0.209.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{"who has no NAT is told nothing of the world", "example.org.", dns.TypeA, "REFUSED"},
		{"nor of addresses outside", "1.1.1.1.in-addr.arpa.", dns.TypePTR, "REFUSED"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(tt.what+", over "+network, func(t *testing.T) {
				if got := show(exchange(t, network, server, query(tt.name, tt.qtype))); got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
			})
		}
	}
	t.Run("a VM that is renamed or gone is not found by its old name", func(t *testing.T) {
		s.Put("aaaaaaaaaaaa", Guest{Name: "db", Addr: netip.MustParseAddr("10.209.0.2")})
		if got := show(exchange(t, "udp", server, query("web.vm.", dns.TypeA))); got != "NXDOMAIN" {
			t.Errorf("got %s", got)
		}
		s.Drop("aaaaaaaaaaaa")
		if got := show(exchange(t, "udp", server, query("db.vm.", dns.TypeA))); got != "NXDOMAIN" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("a port that is taken is busy, and nothing stays open", func(t *testing.T) {
		other, err := New(s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		free := freePort(t)
		err = other.Listen(free, netip.MustParseAddrPort(server))
		if !errkind.Is(err, api.KindBusy) || !strings.Contains(errkind.Hint(err), "network.dns") {
			t.Errorf("got %v, hint %q", err, errkind.Hint(err))
		}
		l, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(free))
		if err != nil {
			t.Fatalf("the first port is still open: %v", err)
		}
		l.Close()
	})
}

// world is an upstream: what it says, and how often it was asked.
type world struct {
	asked  atomic.Int32
	answer func(w dns.ResponseWriter, q *dns.Msg)
}

func (u *world) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	u.asked.Add(1)
	u.answer(w, q)
}

// upstream starts a name server on a free port.
func upstream(t testing.TB, answer func(w dns.ResponseWriter, q *dns.Msg)) (*world, string) {
	t.Helper()
	u := &world{answer: answer}
	port := freePort(t)
	for _, network := range []string{"udp", "tcp"} {
		ready := make(chan struct{})
		srv := &dns.Server{Addr: port.String(), Net: network, Handler: u, NotifyStartedFunc: func() { close(ready) }}
		go srv.ListenAndServe() //nolint:errcheck // a server that does not start is seen below
		<-ready
		t.Cleanup(func() { srv.Shutdown() }) //nolint:errcheck // the test is over
	}
	return u, port.String()
}

func rr(t testing.TB, text string) dns.RR {
	t.Helper()
	r, err := dns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestForwarder(t *testing.T) {
	t.Run("other names are asked for once while the answer may be remembered", func(t *testing.T) {
		u, addr := upstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			m.Answer = []dns.RR{rr(t, q.Question[0].Name+" 60 IN A 192.0.2.1")}
			w.WriteMsg(m) //nolint:errcheck // the asker would time out
		})
		_, server := serve(t, true, addr)
		for _, name := range []string{"example.org.", "Example.ORG."} {
			q := query(name, dns.TypeA)
			m := exchange(t, "udp", server, q)
			if got := show(m); got != "NOERROR; example.org. 60 IN A 192.0.2.1" || m.Id != q.Id || m.Question[0].Name != name {
				t.Errorf("got %s, for %q", got, m.Question[0].Name)
			}
		}
		if n := u.asked.Load(); n != 1 {
			t.Errorf("the upstream was asked %d times", n)
		}
	})
	t.Run("an answer too long for a packet is fetched over TCP, and given to those who ask over TCP", func(t *testing.T) {
		_, addr := upstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			for i := range 100 {
				m.Answer = append(m.Answer, rr(t, fmt.Sprintf("%s 60 IN TXT %q", q.Question[0].Name, strings.Repeat("x", 40)+fmt.Sprint(i))))
			}
			if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
				m.Truncate(dns.MinMsgSize)
			}
			w.WriteMsg(m) //nolint:errcheck // the asker would time out
		})
		_, server := serve(t, true, addr)
		if m := exchange(t, "udp", server, query("long.example.", dns.TypeTXT)); !m.Truncated || len(m.Answer) == 100 {
			t.Errorf("over UDP: truncated %t, %d records", m.Truncated, len(m.Answer))
		}
		if m := exchange(t, "tcp", server, query("long.example.", dns.TypeTXT)); m.Truncated || len(m.Answer) != 100 {
			t.Errorf("over TCP: truncated %t, %d records", m.Truncated, len(m.Answer))
		}
	})
	t.Run("the next upstream is asked when one fails, and the failure is not remembered", func(t *testing.T) {
		bad, badAddr := upstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
			w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)) //nolint:errcheck // the asker would time out
		})
		_, goodAddr := upstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
			w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeNameError)) //nolint:errcheck // as above
		})
		_, server := serve(t, true, badAddr, goodAddr)
		if got := show(exchange(t, "udp", server, query("no.example.", dns.TypeA))); got != "NXDOMAIN" {
			t.Errorf("got %s", got)
		}
		_, server = serve(t, true, badAddr)
		for range 2 {
			if got := show(exchange(t, "udp", server, query("no.example.", dns.TypeA))); got != "SERVFAIL" {
				t.Errorf("got %s", got)
			}
		}
		if n := bad.asked.Load(); n != 3 {
			t.Errorf("the bad one was asked %d times", n)
		}
	})
}

func TestCache(t *testing.T) {
	key := dns.Question{Name: "example.org.", Qtype: dns.TypeA, Qclass: dns.ClassINET}
	for _, tt := range []struct {
		what   string
		msg    *dns.Msg
		life   time.Duration
		remain string // after half of it
	}{
		{"an answer lives as long as its shortest record", &dns.Msg{Answer: []dns.RR{rr(t, "example.org. 20 IN A 192.0.2.1"), rr(t, "example.org. 60 IN A 192.0.2.2")}},
			20 * time.Second, "NOERROR; example.org. 10 IN A 192.0.2.1; example.org. 50 IN A 192.0.2.2"},
		{"a no lives as long as its zone says", &dns.Msg{MsgHdr: dns.MsgHdr{Rcode: dns.RcodeNameError},
			Ns: []dns.RR{rr(t, "org. 900 IN SOA a. b. 1 1 1 1 40")}}, 40 * time.Second, "NXDOMAIN"},
		{"a no that does not say lives for a moment", &dns.Msg{}, negativeTTL, "NOERROR"},
		{"nothing lives for days", &dns.Msg{Answer: []dns.RR{rr(t, "example.org. 864000 IN A 192.0.2.1")}},
			cacheTTL, "NOERROR; example.org. 862200 IN A 192.0.2.1"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newForwarder(func() []string { return nil })
				f.remember(key, tt.msg, time.Now())
				time.Sleep(tt.life / 2) // the test's clock, which does not wait
				if m := f.recall(key, time.Now()); m == nil || show(m) != tt.remain {
					t.Fatalf("half-way: %v", m)
				}
				time.Sleep(tt.life / 2)
				if m := f.recall(key, time.Now()); m != nil {
					t.Errorf("at the end: %s", show(m))
				}
			})
		})
	}
	t.Run("it is bounded", func(t *testing.T) {
		f := newForwarder(func() []string { return nil })
		for i := range cacheSize + 10 {
			key.Name = fmt.Sprintf("n%d.example.", i)
			f.remember(key, &dns.Msg{Answer: []dns.RR{rr(t, key.Name+" 60 IN A 192.0.2.1")}}, time.Now())
		}
		if len(f.cache) > cacheSize {
			t.Errorf("%d entries", len(f.cache))
		}
		if f.recall(key, time.Now()) == nil {
			t.Error("the newest is not there")
		}
	})
}

func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	servers := ResolvConf(path)
	if got := servers(); got != nil {
		t.Errorf("of no file: %v", got)
	}
	for i, tt := range []struct{ text, want string }{
		{"nameserver 192.0.2.1\nnameserver 2001:db8::1\n", "192.0.2.1:53 [2001:db8::1]:53"}, {"nameserver 192.0.2.9\n", "192.0.2.9:53"},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		when := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(servers(), " "); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

// BenchmarkDNS asks at 1,000 queries a second, as many VMs would, and reports how long the answers took.
func BenchmarkDNS(b *testing.B) {
	s, server := serve(b, false)
	for i := range 1000 {
		s.Put(banger.VMID(fmt.Sprint(i)), Guest{Name: fmt.Sprintf("vm%d", i), Addr: netip.AddrFrom4([4]byte{10, 209, byte(i >> 8), byte(i)})})
	}
	b.ResetTimer()
	const askers = 4
	var mu sync.Mutex // guards all
	var all []time.Duration
	var wg sync.WaitGroup
	for a := range askers {
		wg.Go(func() {
			conn, err := dns.Dial("udp", server)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			var took []time.Duration
			tick := time.NewTicker(askers * time.Millisecond)
			defer tick.Stop()
			for i := a; i < b.N; i += askers {
				<-tick.C
				begun := time.Now()
				if err := conn.WriteMsg(query(fmt.Sprintf("vm%d.vm.", i%1000), dns.TypeA)); err != nil {
					b.Error(err)
					return
				}
				if _, err := conn.ReadMsg(); err != nil {
					b.Error(err)
					return
				}
				took = append(took, time.Since(begun))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	wg.Wait()
	slices.Sort(all)
	if n := len(all); n > 0 {
		b.ReportMetric(float64(all[n/2].Microseconds()), "p50-µs")
		b.ReportMetric(float64(all[min(n*99/100, n-1)].Microseconds()), "p99-µs")
	}
}
