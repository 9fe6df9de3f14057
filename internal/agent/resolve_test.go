package agent

import (
	"context"
	"net"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/errkind"
)

// nameServer answers every query with a response code (RFC 1035, 4.1.1) and no records.
func nameServer(t *testing.T, code byte) *net.Resolver {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			b[2] |= 0x80                // a response
			b[3] = 0x80 | code          // recursion is available
			b[10], b[11] = 0, 0         // without the additional records of the query
			server.WriteTo(b[:n], from) //nolint:errcheck // the asker waits in vain, and says so
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, server.LocalAddr().String())
	}}
}

func TestResolve(t *testing.T) {
	const nameError, refused = 3, 5
	a := testAgent()
	t.Run("a name server that answers is enough", func(t *testing.T) {
		a.resolver = nameServer(t, nameError)
		if err := ask(t.Context(), t, a, guestapi.MethodResolve, nil, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("one that refuses is not", func(t *testing.T) {
		a.resolver = nameServer(t, refused)
		if err := ask(t.Context(), t, a, guestapi.MethodResolve, nil, nil); !errkind.Is(err, api.KindUnavailable) {
			t.Errorf("got %v", err)
		}
	})
}
