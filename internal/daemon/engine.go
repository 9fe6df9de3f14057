package daemon

import (
	"context"
	"log/slog"

	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// engine is what runs VMs on this host.
type engine struct {
	drivers map[string]vmm.Driver
	auto    vmm.Driver
	group   host.Cgroup // in which machines have groups of their own
}

func openEngine(ctx context.Context, o Options, log *slog.Logger) engine {
	group, err := host.FindCgroup(o.Paths.Cgroup())
	if err != nil {
		log.Info("VMs get no control groups of their own", "err", err)
	}
	if err := group.Sweep(); err != nil {
		log.Warn("remove control groups that a crash left", "err", err)
	}
	d := qemu.New(ctx, qemu.Config{
		Binary: o.Config.QEMUBin, Accel: o.Config.QEMUAccel, Group: group, Log: log,
		KVM: host.KVM{Dir: o.Paths.Cache, QEMU: o.Config.QEMUBin}.Usable,
	})
	return engine{drivers: map[string]vmm.Driver{d.Name(): d}, auto: d, group: group}
}
