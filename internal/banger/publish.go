package banger

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// Publish is a port of a guest that the host listens for. Its text is HOSTIP:PORT:GUESTPORT.
type Publish struct {
	Host  netip.AddrPort
	Guest uint16
}

// localhost is where ports are published unless an address is given: on no network.
var localhost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// ParsePublish reads [HOSTIP:]PORT:GUESTPORT, with an IPv6 address in brackets; one PORT alone means the same on both sides.
func ParsePublish(text string) (Publish, error) {
	bad := errkind.WithHint(errkind.New(api.KindInvalid, "bad port to publish %q", text),
		"write it as PORT:GUESTPORT, such as 8080:80, or HOSTIP:PORT:GUESTPORT, such as 0.0.0.0:8080:80")
	rest, last := "", text
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		rest, last = text[:i], text[i+1:]
	}
	guest, err := parsePort(last)
	if err != nil {
		return Publish{}, bad
	}
	p := Publish{Guest: guest}
	if host, port, ok := cutLast(rest); ok {
		addr, addrErr := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
		n, portErr := parsePort(port)
		if addrErr != nil || portErr != nil || addr.Is6() != strings.HasPrefix(host, "[") {
			return Publish{}, bad
		}
		p.Host = netip.AddrPortFrom(addr, n)
		return p, nil
	}
	n := guest
	if rest != "" || strings.HasPrefix(text, ":") {
		if n, err = parsePort(rest); err != nil {
			return Publish{}, bad
		}
	}
	p.Host = netip.AddrPortFrom(localhost, n)
	return p, nil
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err == nil && n == 0 {
		err = fmt.Errorf("port 0")
	}
	return uint16(n), err
}

func (p Publish) String() string { return fmt.Sprintf("%s:%d", p.Host, p.Guest) }

// MarshalText gives what ParsePublish reads.
func (p Publish) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (p *Publish) UnmarshalText(b []byte) error {
	v, err := ParsePublish(string(b))
	*p = v
	return err
}
