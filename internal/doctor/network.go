package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/preflight"
)

// lookUp bounds one look-up; that of a resolver of libc gives up after ten seconds (resolv.conf(5)).
const lookUp = 12 * time.Second

// network looks a name up as a user of a guest would: in a guest where one runs, else with the host's name servers, to
// which those of guests lead.
func (d *Doctor) network(ctx context.Context) (string, []preflight.Problem) {
	mode, found := "user-mode stack of the VMM", []preflight.Problem(nil)
	if d.cfg.Network != nil {
		mode, found = d.cfg.Network(ctx)
	} else if !d.cfg.Driver.Features().UserNet {
		return "", []preflight.Problem{{
			Detail: d.cfg.Driver.Name() + " has no user-mode network", Fix: `use another VMM: set vmm = "auto" in the configuration`,
		}}
	}
	where, err := d.resolve(ctx)
	if err != nil {
		return "", append(found, preflight.Problem{
			Detail: fmt.Sprintf("names cannot be looked up %s: %v", where, err), Minor: true,
			Fix: "see that the name servers in the host's /etc/resolv.conf answer: guests are led to them",
		})
	}
	return mode + "; names can be looked up " + where, found
}

func (d *Doctor) resolve(ctx context.Context) (where string, err error) {
	if vm, err := d.resolveInGuest(ctx); vm != "" {
		return fmt.Sprintf("in vm %q", vm), err
	}
	ctx, cancel := context.WithTimeout(ctx, lookUp)
	defer cancel()
	_, err = d.cfg.Resolver.LookupNS(ctx, ".")
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound { // an answer, as for the agent
		err = nil
	}
	return "on the host", err
}

// resolveInGuest asks in a running guest that may reach the internet. The name is empty when none can tell.
func (d *Doctor) resolveInGuest(ctx context.Context) (vm string, err error) {
	vms, err := d.cfg.VMs.List(ctx)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, lookUp)
	defer cancel()
	for _, vm := range vms {
		if vm.State != banger.Running || !vm.Spec.NAT {
			continue
		}
		_, conn, err := d.cfg.VMs.Guest(ctx, string(vm.ID))
		if err != nil {
			continue
		}
		err = conn.Call(ctx, guestapi.MethodResolve, nil, nil)
		select {
		case <-conn.Done():
			continue // the VM was stopped meanwhile
		default:
		}
		if err == nil || errkind.Is(err, api.KindUnavailable) {
			return vm.Name, err
		}
	}
	return "", nil
}
