package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/preflight"
)

// localChecks are what may keep the daemon from starting or from being reached.
func localChecks(a *app.App) []preflight.Check {
	paths, err := a.Paths()
	if err != nil {
		return []preflight.Check{{Name: "directories", Ask: func(context.Context) (string, []preflight.Problem) { return preflight.Failed(err) }}}
	}
	cfg, cfgErr := config.Load(paths.ConfigFile(), a.LookupEnv, nil)
	return []preflight.Check{
		{Name: "config", Ask: func(context.Context) (string, []preflight.Problem) {
			if cfgErr != nil {
				return preflight.Failed(cfgErr)
			}
			return paths.ConfigFile(), nil
		}},
		preflight.Directories(paths),
		{Name: "lock", Ask: func(context.Context) (string, []preflight.Problem) { return lockFree(paths.Lock()) }},
		{Name: "installed", Ask: func(context.Context) (string, []preflight.Problem) { return installed(a, cfg) }},
		preflight.Programs(),
	}
}

// lockFree tells who holds the daemon's lock although no daemon answers.
func lockFree(path string) (string, []preflight.Problem) {
	pid, err := host.LockHolder(path)
	if err != nil {
		return "nobody holds the daemon's lock", nil // nor, perhaps, is there one
	}
	return "", []preflight.Problem{{
		Detail: fmt.Sprintf("process %d holds the daemon's lock %s, but no daemon answers", pid, path),
		Fix:    fmt.Sprintf("if it does not end by itself, see `banger daemon logs`, then end it: `kill %d`; VMs keep running", pid),
	}}
}

// installed looks for the other programs of banger, and for the VMM.
func installed(a *app.App, cfg *config.Config) (string, []preflight.Problem) {
	var found []preflight.Problem
	daemon, err := a.DaemonProgram()
	if err != nil {
		found = append(found, preflight.Problem{Detail: err.Error(), Fix: errkind.Hint(err)})
		daemon = a.Executable
	}
	agent := filepath.Join(filepath.Dir(daemon), "banger-agent")
	if _, err := host.LookPath(agent); err != nil {
		found = append(found, preflight.Problem{Detail: "there is no guest agent " + agent, Fix: "install banger-agent beside bangerd"})
	}
	if cfg != nil {
		if _, err := host.LookPath(cfg.QEMUBin); errkind.Is(err, api.KindUnavailable) {
			found = append(found, preflight.Problem{
				Detail: "QEMU is not installed: " + err.Error(),
				Fix:    "install it (on Debian: qemu-system-x86), or name it in the configuration's qemu_bin",
			})
		}
	}
	return "banger's programs and the VMM", found
}
