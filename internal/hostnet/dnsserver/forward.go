package dnsserver

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Upstreams returns the addresses of name servers, host:port, the preferred first. It is asked for each name that is forwarded.
type Upstreams func() []string

// ResolvConf returns the name servers of a resolv.conf(5) file, which is read again when it has changed: networks come and go.
func ResolvConf(path string) Upstreams {
	f := &resolvConf{path: path}
	return f.servers
}

type resolvConf struct {
	path string

	mu      sync.Mutex // guards what was read last. Exception: the file is looked at under it, so that one query reads it
	changed time.Time
	known   []string
}

func (f *resolvConf) servers() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, err := os.Stat(f.path)
	if err != nil || st.ModTime().Equal(f.changed) {
		return f.known
	}
	conf, err := dns.ClientConfigFromFile(f.path)
	if err != nil {
		return f.known
	}
	f.known, f.changed = nil, st.ModTime()
	for _, s := range conf.Servers {
		if _, err := netip.ParseAddr(s); err == nil {
			f.known = append(f.known, net.JoinHostPort(s, conf.Port))
		}
	}
	return f.known
}

// Bounds of what is remembered, and of the wait for an answer.
const (
	cacheSize   = 4096
	cacheTTL    = time.Hour       // no answer is remembered longer
	negativeTTL = 5 * time.Second // of an answer that says no and not for how long
	patience    = 2 * time.Second // with one upstream
)

// forwarder asks upstreams, and remembers what they said for as long as they allow.
type forwarder struct {
	upstreams Upstreams

	mu    sync.Mutex // guards cache: queries are answered concurrently
	cache map[dns.Question]cached
}

type cached struct {
	msg            *dns.Msg // shared: copied before it is changed
	stored, expiry time.Time
}

func newForwarder(u Upstreams) *forwarder {
	return &forwarder{upstreams: u, cache: map[dns.Question]cached{}}
}

// exchange returns the answer to q from the cache or from the first upstream that gives one.
func (f *forwarder) exchange(q *dns.Msg) *dns.Msg {
	key := q.Question[0]
	key.Name = dns.CanonicalName(key.Name)
	if m := f.recall(key, time.Now()); m != nil {
		return reply(q, m)
	}
	for _, server := range f.upstreams() {
		m, err := ask(q, server)
		if err != nil || m.Rcode == dns.RcodeServerFailure || m.Rcode == dns.RcodeRefused {
			continue
		}
		f.remember(key, m, time.Now())
		return reply(q, m)
	}
	return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
}

// ask asks one server, over TCP too when the answer is too long for a packet.
func ask(q *dns.Msg, server string) (*dns.Msg, error) {
	query := new(dns.Msg)
	query.SetQuestion(q.Question[0].Name, q.Question[0].Qtype)
	query.RecursionDesired, query.CheckingDisabled = true, q.CheckingDisabled
	opt := q.IsEdns0()
	query.SetEdns0(1232, opt != nil && opt.Do()) // 1232 is what passes everywhere unfragmented (DNS flag day 2020)
	udp := dns.Client{Timeout: patience, UDPSize: 4096}
	m, _, err := udp.Exchange(query, server)
	if err == nil && m.Truncated {
		tcp := dns.Client{Net: "tcp", Timeout: patience}
		m, _, err = tcp.Exchange(query, server)
	}
	return m, err
}

// reply makes an upstream's answer one to q: under q's id, and with q's EDNS or none (RFC 6891, 6.1.1).
func reply(q, m *dns.Msg) *dns.Msg {
	out := m.Copy()
	out.Id, out.Question = q.Id, q.Question
	out.RecursionAvailable, out.Authoritative = true, false
	extra := out.Extra[:0]
	for _, rr := range out.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			extra = append(extra, rr)
		}
	}
	out.Extra = extra
	if opt := q.IsEdns0(); opt != nil {
		out.SetEdns0(opt.UDPSize(), opt.Do())
	}
	return out
}

// recall returns a remembered answer with what is left of its records' lives, or nil.
func (f *forwarder) recall(key dns.Question, now time.Time) *dns.Msg {
	f.mu.Lock()
	c, ok := f.cache[key]
	f.mu.Unlock()
	if !ok || !now.Before(c.expiry) {
		return nil
	}
	m := c.msg.Copy()
	age := uint32(now.Sub(c.stored).Seconds())
	for _, rr := range records(m) {
		h := rr.Header()
		h.Ttl -= min(age, h.Ttl)
	}
	return m
}

func (f *forwarder) remember(key dns.Question, m *dns.Msg, now time.Time) {
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return
	}
	life := cacheTTL
	for _, rr := range records(m) {
		life = min(life, time.Duration(rr.Header().Ttl)*time.Second)
		if soa, ok := rr.(*dns.SOA); ok && len(m.Answer) == 0 {
			life = min(life, time.Duration(soa.Minttl)*time.Second) // RFC 2308, 5
		}
	}
	if len(m.Answer) == 0 && len(m.Ns) == 0 {
		life = negativeTTL
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.cache) >= cacheSize {
		f.evict(now)
	}
	f.cache[key] = cached{msg: m, stored: now, expiry: now.Add(life)}
}

// evict makes room: what has expired goes, and if that is nothing, any one. The caller holds the lock.
func (f *forwarder) evict(now time.Time) {
	for key, c := range f.cache {
		if !now.Before(c.expiry) {
			delete(f.cache, key)
		}
	}
	for key := range f.cache {
		if len(f.cache) < cacheSize {
			return
		}
		delete(f.cache, key)
	}
}

// records are the records of m that have a life: all but EDNS.
func records(m *dns.Msg) []dns.RR {
	var all []dns.RR
	for _, part := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range part {
			if rr.Header().Rrtype != dns.TypeOPT {
				all = append(all, rr)
			}
		}
	}
	return all
}
