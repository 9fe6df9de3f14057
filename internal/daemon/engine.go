package daemon

import (
	"context"
	"log/slog"
	"os"

	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/firecracker"
	"github.com/banger-vm/banger/internal/vmm/firecracker/fcproc"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// engine is what runs VMs on this host.
type engine struct {
	drivers map[string]vmm.Driver
	auto    vmm.Driver
	why     string      // that one
	taps    bool        // VMs have tap devices: the network's mode is bridge
	group   host.Cgroup // in which machines have groups of their own
}

func openEngine(ctx context.Context, o Options, taps bool, log *slog.Logger) engine {
	group, err := host.FindCgroup(o.Paths.Cgroup())
	if err != nil {
		log.Info("VMs get no control groups of their own", "err", err)
	}
	if err := group.Sweep(); err != nil {
		log.Warn("remove control groups that a crash left", "err", err)
	}
	c := o.Config
	kvm := host.KVM{Dir: o.Paths.Cache, QEMU: c.QEMUBin}.Usable
	e := engine{drivers: map[string]vmm.Driver{}, taps: taps, group: group}
	best := []vmm.Driver{
		firecracker.New(ctx, firecracker.Config{
			Programs: fcproc.Config{Firecracker: c.Firecracker, Jailer: c.JailerBin, UseJailer: c.Jailer, Root: os.Geteuid() == 0},
			KVM:      kvm, Group: group, Log: log,
		}),
		qemu.New(ctx, qemu.Config{Binary: c.QEMUBin, Accel: c.QEMUAccel, Group: group, Log: log, KVM: kvm}),
	}
	for _, d := range best {
		e.drivers[d.Name()] = d
	}
	e.auto, e.why = vmm.Choose(c.VMM, e.taps, best...)
	return e
}
