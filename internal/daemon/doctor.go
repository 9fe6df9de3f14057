package daemon

import (
	"context"
	"net"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/capabilities"
	"github.com/banger-vm/banger/internal/doctor"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm"
)

// Doctor implements rpcserver.Daemon.
func (d *Daemon) Doctor(ctx context.Context, ask api.DoctorAsk) api.Doctor {
	return api.Doctor{Checks: preflight.Report(ctx, d.newDoctor().Checks(ask.Full), false)}
}

// Fix implements rpcserver.Daemon.
func (d *Daemon) Fix(ctx context.Context, ask api.DoctorAsk) api.Doctor {
	return api.Doctor{Checks: preflight.Report(ctx, d.newDoctor().Checks(ask.Full), true)}
}

func (d *Daemon) newDoctor() *doctor.Doctor {
	o := d.opts
	return doctor.New(doctor.Config{
		Paths: o.Paths, Version: o.Version, Agent: o.Agent, Driver: d.engine.auto, DriverWhy: d.engine.why, Taps: d.engine.taps, Group: d.engine.group,
		Default: vmm.Spec{
			VCPU: o.Config.VMDefaults.VCPU, MemMiB: int(o.Config.VMDefaults.Memory >> 20), RunDir: o.Paths.VMRunDir(banger.NewID[banger.VMID]()),
		},
		Cloner: d.chooseCloner, Resolver: &net.Resolver{PreferGo: true}, Network: d.net.check(),
		Store: d.store, Images: d.images, Kernels: d.kernels, VMs: d.vms, Templates: d.templates.Inspect,
		Leftovers: []doctor.Leftovers{
			func(ctx context.Context) ([]preflight.Problem, error) {
				return d.vms.Leftovers(ctx, capabilities.ReadHandle)
			},
			d.images.Leftovers, d.kernels.Leftovers,
		},
	})
}
