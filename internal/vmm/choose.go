package vmm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/preflight"
)

// Auto is what is wanted when nobody wants a driver in particular.
const Auto = "auto"

// Choose returns the driver of VMs that name none, and why, for people. Of best, in this order, auto takes the first that can run VMs
// on this host, and the last when none can. One that is wanted by name is taken whether it can or not, so that a start says what keeps
// it from running; nil when there is none of that name. taps: VMs have tap devices on this host.
func Choose(wanted string, taps bool, best ...Driver) (d Driver, why string) {
	if wanted != Auto {
		if i := slices.IndexFunc(best, func(d Driver) bool { return d.Name() == wanted }); i >= 0 {
			return best[i], "the configuration says so"
		}
		return nil, ""
	}
	var unfit []string
	for _, d := range best {
		found := d.Features().Unfitness(taps)
		if len(found) == 0 {
			return d, strings.Join(append([]string{"the best that runs here"}, unfit...), "; ")
		}
		unfit = append(unfit, fmt.Sprintf("not %s: %s", d.Name(), found[0].Detail))
	}
	return best[len(best)-1], strings.Join(unfit, "; ")
}

// Unfitness is what keeps a driver from running any VM on a host whose VMs have tap devices, or have none.
func (f Features) Unfitness(taps bool) []preflight.Problem {
	return slices.Concat(f.Unfit, f.NoNetwork(taps))
}

// NoNetwork is why VMs would be without a network.
func (f Features) NoNetwork(taps bool) []preflight.Problem {
	if f.UserNet || taps {
		return nil
	}
	return []preflight.Problem{{
		Detail: "it has no network of its own, and VMs get no tap devices here", Fix: "set network.mode to bridge, or use QEMU: --vmm qemu",
	}}
}
