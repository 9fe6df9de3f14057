package agent

import (
	"context"
	"errors"
	"net"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/errkind"
)

// resolve asks the guest's name servers, those of its /etc/resolv.conf, for the servers of the root zone. That they have none
// is an answer too: what is asked is whether names can be looked up from here.
func (a *Agent) resolve(ctx context.Context, _ *call.Call) (any, error) {
	_, err := a.resolver.LookupNS(ctx, ".")
	var dns *net.DNSError
	if err == nil || errors.As(err, &dns) && dns.IsNotFound {
		return nil, nil
	}
	return nil, errkind.New(api.KindUnavailable, "%w", err)
}
