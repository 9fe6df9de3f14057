package agent

import (
	"context"
	"fmt"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/boot"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/agent/guestnet"
	"github.com/banger-vm/banger/internal/errkind"
)

// become makes a template's guest that of a VM, see guestapi.Become. The random generator comes first: nothing that is made after
// it may be what another guest of the template has.
func (a *Agent) become(ctx context.Context, c *call.Call) (any, error) {
	var p guestapi.Become
	if err := c.Params(&p); err != nil {
		return nil, err
	}
	a.becoming.Lock()
	defer a.becoming.Unlock()
	template := a.config()
	if !template.Template && template.VMID == p.Config.VMID {
		return a.whoWeAre(), nil // the answer was lost, and the host asks again
	}
	if !template.Template {
		return nil, errkind.New(api.KindPrecondition, "this guest is VM %s already", template.VMID)
	}
	if p.Config.Template || p.Config.VMID == "" {
		return nil, errkind.New(api.KindInvalid, "no VM to become")
	}
	a.journal.Phase("becoming")
	if err := boot.Reseed(p.Seed); err != nil {
		return nil, fmt.Errorf("seed the random generator: %w", err)
	}
	a.journal.Warn("set the clock", boot.SetClock(p.Config.Time))
	if p.Config.Net != nil && template.Net != nil {
		if err := guestnet.SetMAC(template.Net.MAC, p.Config.Net.MAC); err != nil {
			return nil, err
		}
	}
	a.identity.replace(guestapi.Identity{AuthorizedKeys: p.Config.AuthorizedKeys, HostKey: p.Config.HostKey, Env: p.Config.Env})
	a.boot.Store(&p.Config)
	a.settle()
	return a.whoWeAre(), nil
}
