package systemcmd

import (
	"context"
	"os"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

// checkHost refuses a host that has no systemd as its first process (sd_booted(3)), and a caller who is not root.
func checkHost(verb string) error {
	if st, err := os.Lstat("/run/systemd/system"); err != nil || !st.IsDir() {
		return errkind.WithHint(errkind.New(api.KindPrecondition, "systemd does not run on this host"),
			"the system's daemon needs it; without it every user has a daemon of his own, which needs no installation: `banger run`")
	}
	if os.Geteuid() != 0 {
		return errkind.WithHint(errkind.New(api.KindPermission, "only root may do this"), "use `sudo banger system %s`", verb)
	}
	return nil
}

// unitState is what systemctl show(1) says of the unit.
type unitState struct{ Load, Active, Sub, Enabled string }

func showUnit(ctx context.Context) (unitState, error) {
	out, err := host.Output(ctx, host.Command{Argv: []string{
		"systemctl", "show", unit, "--property=LoadState,ActiveState,SubState,UnitFileState"}})
	if err != nil {
		return unitState{}, err
	}
	return parseUnit(string(out)), nil
}

func parseUnit(text string) unitState {
	var s unitState
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch name {
		case "LoadState":
			s.Load = value
		case "ActiveState":
			s.Active = value
		case "SubState":
			s.Sub = value
		case "UnitFileState":
			s.Enabled = value
		}
	}
	return s
}

// systemctl runs systemctl(1).
func systemctl(ctx context.Context, args ...string) error {
	return host.Run(ctx, host.Command{Argv: append([]string{"systemctl", "--quiet"}, args...)})
}
