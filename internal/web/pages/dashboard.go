package pages

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
)

// board is what the dashboard shows.
type board struct {
	Info       api.Info
	VMs        []vmRow
	Operations []api.Operation // that run
	Events     []api.Event     // latest first
	Reserved   use             // by VMs that run
	Used       use
}

// use is an amount of each of the host's things.
type use struct {
	CPU  int
	Mem  int64
	Disk int64
}

// vmRow is a VM with what it uses, which is nil for one that does not run.
type vmRow struct {
	api.VM
	Stats *api.VMStats
}

func dashboard(ctx context.Context, c *client.Client, _ *http.Request) (any, error) {
	var b board
	var err error
	if b.Info, err = c.Info(ctx); err != nil {
		return nil, err
	}
	if b.VMs, err = vmRows(ctx, c); err != nil {
		return nil, err
	}
	if b.Operations, err = c.OperationList(ctx); err != nil {
		return nil, err
	}
	b.Operations = slices.DeleteFunc(b.Operations, func(o api.Operation) bool { return o.State.Done() })
	if b.Events, err = latest(ctx, c, "", 12); err != nil {
		return nil, err
	}
	for _, v := range b.VMs {
		if !live(v.State) {
			continue
		}
		b.Reserved.CPU += v.VCPU
		b.Reserved.Mem += int64(v.MemMiB) << 20
		if v.Stats != nil {
			b.Used.Mem += v.Stats.MemResident
			b.Used.Disk += v.Stats.RootAllocated + v.Stats.DiskAllocated
		}
		b.Reserved.Disk += v.RootSize + v.DiskSize
	}
	return b, nil
}

// vmRows returns all VMs, those that run first and then by name.
func vmRows(ctx context.Context, c *client.Client) ([]vmRow, error) {
	vms, err := c.VMList(ctx)
	if err != nil {
		return nil, err
	}
	stats, err := c.VMStats(ctx)
	if err != nil {
		return nil, err
	}
	by := map[string]*api.VMStats{}
	for i := range stats {
		by[stats[i].ID] = &stats[i]
	}
	rows := make([]vmRow, 0, len(vms))
	for _, v := range vms {
		rows = append(rows, vmRow{v, by[v.ID]})
	}
	slices.SortFunc(rows, func(a, b vmRow) int {
		if live(a.State) != live(b.State) {
			if live(a.State) {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return rows, nil
}

// eventWindow is how far back the latest events are looked for, in numbers of events.
const eventWindow = 500

// latest returns at most n of the latest events of subject, or of all when it is empty, latest first.
func latest(ctx context.Context, c *client.Client, subject string, n int) ([]api.Event, error) {
	none := func(api.Event) error { return nil }
	last, err := c.Events(ctx, api.Events{}, none)
	if err != nil {
		return nil, err
	}
	var out []api.Event
	each := func(e api.Event) error { out = append(out, e); return nil }
	after := last - eventWindow
	if after <= 0 {
		after = -1
	}
	if _, err := c.Events(ctx, api.Events{After: after, Subject: subject}, each); err != nil {
		// What is remembered begins later than the window.
		if _, err = c.Events(ctx, api.Events{After: -1, Subject: subject}, each); err != nil {
			return nil, err
		}
	}
	slices.Reverse(out)
	return out[:min(n, len(out))], nil
}

func doctor(ctx context.Context, c *client.Client, _ *http.Request) (any, error) {
	d, err := c.Doctor(ctx, api.DoctorAsk{})
	return d.Checks, err
}
