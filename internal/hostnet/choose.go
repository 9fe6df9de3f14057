package hostnet

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/hostnet/nat"
	"golang.org/x/sys/unix"
)

// The modes of the network.
const (
	ModeUser   = "user"   // each VM on its VMM's own stack
	ModeBridge = "bridge" // all VMs on a bridge of the host's
)

// Facts are what the choice of the mode depends on.
type Facts struct {
	Forced string  // the configured mode; auto or empty: choose
	System bool    // this is the system's daemon, which may change the host's network unasked
	Bars   []error // what keeps this process from bridging
}

// Choice is the chosen mode, and why.
type Choice struct{ Mode, Why string }

// Probe returns what keeps this process from bridging guests: each is a fact about the host with a hint.
func Probe() []error {
	var bars []error
	if !netAdmin() {
		bars = append(bars, errkind.WithHint(errkind.New(api.KindPermission, "this process may not change the host's network (CAP_NET_ADMIN)"),
			"run the daemon as root: `banger system install`"))
		return bars // the rest cannot be told without it
	}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		bars = append(bars, errkind.WithHint(fmt.Errorf("taps: %w", err), "load the module: `modprobe tun`"))
	} else {
		f.Close()
	}
	if err := nat.Probe(); err != nil {
		bars = append(bars, errkind.WithHint(err, "load the module: `modprobe nf_tables`"))
	}
	return bars
}

// netAdmin reports whether this process has CAP_NET_ADMIN (capget(2)).
func netAdmin() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0
}

// Choose returns the mode of the network. A bridge that is asked for and cannot be is an error of kind unavailable.
func Choose(f Facts) (Choice, error) {
	switch {
	case f.Forced == ModeUser:
		return Choice{ModeUser, "configured"}, nil
	case f.Forced == ModeBridge && len(f.Bars) > 0:
		return Choice{}, errkind.WithHint(errkind.New(api.KindUnavailable, `network.mode = "bridge" cannot work here: %w`, errors.Join(f.Bars...)),
			`%s; or set network.mode = "auto"`, hints(f.Bars))
	case f.Forced == ModeBridge:
		return Choice{ModeBridge, "configured"}, nil
	case !f.System:
		return Choice{ModeUser, "only the system's daemon changes the host's network unasked"}, nil
	case len(f.Bars) > 0:
		return Choice{ModeUser, "no bridge: " + strings.ReplaceAll(errors.Join(f.Bars...).Error(), "\n", "; ")}, nil
	}
	return Choice{ModeBridge, "the system's daemon, with all that a bridge needs"}, nil
}

func hints(errs []error) string {
	var all []string
	for _, err := range errs {
		all = append(all, errkind.Hint(err))
	}
	return strings.Join(all, "; ")
}
