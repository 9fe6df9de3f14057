package vmm_test

import (
	"testing"

	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm"
)

// driver is a driver of which only name and features are asked.
type driver struct {
	vmm.Driver
	name     string
	features vmm.Features
}

func (d driver) Name() string           { return d.name }
func (d driver) Features() vmm.Features { return d.features }

func TestChoose(t *testing.T) {
	broken := []preflight.Problem{{Detail: "it is not installed", Fix: "install it"}}
	fire := driver{name: "firecracker"}
	lost := driver{name: "firecracker", features: vmm.Features{Unfit: broken}}
	qemu := driver{name: "qemu", features: vmm.Features{UserNet: true}}
	lame := driver{name: "qemu", features: vmm.Features{UserNet: true, Unfit: broken}}
	for _, c := range []struct {
		name, wanted string
		taps         bool
		best         []vmm.Driver
		want, why    string
	}{
		{"auto takes the best where it can run", "auto", true, []vmm.Driver{fire, qemu}, "firecracker", "the best that runs here"},
		{"auto passes over one that is not installed", "auto", true, []vmm.Driver{lost, qemu}, "qemu",
			"the best that runs here; not firecracker: it is not installed"},
		{"auto passes over one that would have no network", "auto", false, []vmm.Driver{fire, qemu}, "qemu",
			"the best that runs here; not firecracker: it has no network of its own, and VMs get no tap devices here"},
		{"auto takes the last where none can run", "auto", true, []vmm.Driver{lost, lame}, "qemu",
			"not firecracker: it is not installed; not qemu: it is not installed"},
		{"what is wanted is taken, though it cannot run", "firecracker", false, []vmm.Driver{lost, qemu}, "firecracker", "the configuration says so"},
		{"what is not the best is taken when it is wanted", "qemu", true, []vmm.Driver{fire, qemu}, "qemu", "the configuration says so"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, why := vmm.Choose(c.wanted, c.taps, c.best...)
			if got.Name() != c.want || why != c.why {
				t.Errorf("got %s, because %q", got.Name(), why)
			}
		})
	}
	t.Run("a driver that does not exist is none", func(t *testing.T) {
		if got, _ := vmm.Choose("xen", true, fire, qemu); got != nil {
			t.Errorf("got %s", got.Name())
		}
	})
}
