package ipam

import (
	"net/netip"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		what string
		used []netip.Prefix
		want string
	}{
		{"the first network is taken on an idle host", nil, "10.209.0.0/16"},
		{"a default route claims nothing", prefixes("0.0.0.0/0"), "10.209.0.0/16"},
		{"one that the host uses a part of is left alone", prefixes("10.209.7.0/24"), "10.217.0.0/16"},
		{"a host that routes all of 10/8 gets another", prefixes("10.0.0.0/8", "172.16.0.0/12"), "192.168.209.0/24"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			got, err := Choose(tt.used)
			if err != nil || got.String() != tt.want {
				t.Errorf("got %v %v, want %s", got, err, tt.want)
			}
		})
	}
	t.Run("when nothing is left the error says what to set", func(t *testing.T) {
		_, err := Choose(prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
		if !errkind.Is(err, api.KindUnavailable) || errkind.Hint(err) == "" {
			t.Errorf("got %v, hint %q", err, errkind.Hint(err))
		}
	})
}

func TestNext(t *testing.T) {
	net30 := netip.MustParsePrefix("10.0.0.0/30")
	net24 := netip.MustParsePrefix("10.0.0.0/24")
	for _, tt := range []struct {
		what  string
		net   netip.Prefix
		taken []netip.Addr
		want  string
	}{
		{"the first guest comes after the host", net24, nil, "10.0.0.2"},
		{"a gap is filled", net24, addrs("10.0.0.2", "10.0.0.4"), "10.0.0.3"},
		{"addresses of other networks do not matter", net24, addrs("9.0.0.2", "10.0.0.2", "10.0.1.3"), "10.0.0.3"},
		{"the broadcast address is nobody's", net30, addrs("10.0.0.2"), ""},
	} {
		t.Run(tt.what, func(t *testing.T) {
			got, err := Next(tt.net, tt.taken)
			if tt.want == "" {
				if !errkind.Is(err, api.KindUnavailable) {
					t.Errorf("got %v %v, want no address", got, err)
				}
				return
			}
			if err != nil || got.String() != tt.want {
				t.Errorf("got %v %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestParseNetwork(t *testing.T) {
	for _, bad := range []string{"", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/31", "10.0.0.0/4", "fd00::/64"} {
		t.Run("refuses "+bad, func(t *testing.T) {
			if p, err := ParseNetwork(bad); !errkind.Is(err, api.KindInvalid) {
				t.Errorf("got %v %v", p, err)
			}
		})
	}
	if p, err := ParseNetwork("192.168.7.0/24"); err != nil || Gateway(p).String() != "192.168.7.1" {
		t.Errorf("got %v %v", p, err)
	}
}
