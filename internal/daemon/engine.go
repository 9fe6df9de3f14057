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
}

func openEngine(ctx context.Context, o Options, log *slog.Logger) engine {
	d := qemu.New(ctx, qemu.Config{
		Binary: o.Config.QEMUBin, Accel: o.Config.QEMUAccel, Log: log,
		KVM: host.KVM{Dir: o.Paths.Cache, QEMU: o.Config.QEMUBin}.Usable,
	})
	return engine{drivers: map[string]vmm.Driver{d.Name(): d}, auto: d}
}
