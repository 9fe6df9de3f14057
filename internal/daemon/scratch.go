package daemon

import (
	"context"

	"github.com/banger-vm/banger/internal/capabilities"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/disk/reflink"
	"github.com/banger-vm/banger/internal/disk/sparse"
	"github.com/banger-vm/banger/internal/imagemgr"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vm/scratch"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// openScratch wires the guests that are nobody's VM: QEMU's, on its user-mode network, with disks that are plain files.
func (d *Daemon) openScratch() {
	c, p := d.opts.Config, d.opts.Paths
	cloner := sparse.New()
	if reflink.Probe(p.VMsDir()) == nil {
		cloner = reflink.New()
	}
	chain := capability.NewChain([]capability.Capability{
		&capabilities.Disks{Cloners: map[string]disk.Cloner{cloner.Name(): cloner}, Fresh: freshDisk},
		capabilities.UserNIC{},
		&capabilities.Auth{AuthorizedKey: d.keys.authorized},
		&capabilities.Boot{Builder: d.initramfs},
		&capabilities.Machine{Drivers: d.engine.drivers},
		&capabilities.Agent{Log: d.log},
	}, d.opts.Failpoints, d.log)
	d.scratch = scratch.New(scratch.Config{
		Dir: p.ScratchDir(), RunDir: p.ScratchRunDir, Chain: chain, Driver: d.engine.drivers[qemu.Name], Cloner: cloner.Name(),
		Kernels: d.kernels, Kernel: c.Kernel, VCPU: c.VMDefaults.VCPU, MemMiB: int(c.VMDefaults.Memory >> 20),
		Points: d.opts.Failpoints, Log: d.log,
	})
}

// scratchGuests lends them to the image service, which is opened before them.
type scratchGuests struct{ d *Daemon }

func (s scratchGuests) Run(ctx context.Context, w imagemgr.GuestWork, r opstate.Reporter) error {
	return s.d.scratch.Run(ctx, scratch.Work(w), r)
}
