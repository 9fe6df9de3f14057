package systemcmd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/errkind"
)

type statusOptions struct {
	app *app.App
	out app.Output
}

// status is what `banger system status` prints.
type status struct {
	Unit      string   `json:"unit"`                // ActiveState and SubState of systemd
	Enabled   string   `json:"enabled"`             // UnitFileState of systemd
	Installed string   `json:"installed,omitempty"` // version on disk; empty for who may not read the manifest
	Version   string   `json:"version,omitempty"`   // version that runs
	PID       int      `json:"pid,omitempty"`
	Socket    string   `json:"socket"`
	Running   int      `json:"running"`
	VMs       int      `json:"vms"`
	Changed   []string `json:"changed,omitempty"` // installed files that somebody has changed or removed
	Problem   string   `json:"problem,omitempty"` // why the daemon does not answer
}

func newStatus(a *app.App) *cobra.Command {
	o := &statusOptions{app: a}
	cmd := &cobra.Command{
		Use: "status", Short: "Show the state of the system's daemon", Args: app.Args(0, 0, ""),
		Long: `Show whether the service runs, which version is installed and which one runs, its socket, its VMs, and which installed files were changed.
The version that is installed is shown to root. The exit status is 66 when nothing is installed, and 69 when the daemon does not answer.`,
		Example: `  banger system status
  banger system status --format '{{.Unit}}'`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), o) },
	}
	o.out.Flags(cmd)
	return cmd
}

func runStatus(ctx context.Context, o *statusOptions) error {
	if _, err := os.Stat(unitPath); errors.Is(err, fs.ErrNotExist) {
		return errNotInstalled
	}
	s, asked, err := inspect(ctx)
	if err != nil {
		return err
	}
	if err := app.PrintOne(o.app, o.out, s, s.Unit, s.fields()); err != nil {
		return err
	}
	return asked
}

// errNotInstalled is what status and uninstall say where there is nothing.
var errNotInstalled = errkind.WithHint(errkind.New(api.KindNotFound, "banger is not installed as a service of the system"),
	"install it with `sudo banger system install`")

// inspect returns what is known, and in asked why the daemon could not be asked.
func inspect(ctx context.Context) (s status, asked, err error) {
	u, err := showUnit(ctx)
	if err != nil {
		return s, nil, err
	}
	s = status{Unit: u.Active + " (" + u.Sub + ")", Enabled: u.Enabled, Socket: config.SystemPaths().Socket()}
	t := target{}
	m, err := t.read()
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return s, nil, err
	}
	if err == nil {
		s.Installed = m.Version
		if s.Changed, err = t.changed(m); err != nil {
			return s, nil, err
		}
	}
	info, asked := askDaemon(ctx)
	if asked != nil {
		s.Problem = asked.Error()
	}
	s.Version, s.PID, s.Running, s.VMs = info.Version, info.PID, info.Running, info.VMs
	return s, asked, nil
}

// askDaemon asks the system's daemon, whichever one the caller would talk to.
func askDaemon(ctx context.Context) (api.Info, error) {
	c, err := client.Dial(ctx, config.SystemPaths().Socket(), client.Options{AnyProtocol: true})
	if err != nil {
		return api.Info{}, errkind.WithHint(err, "see `systemctl status bangerd`, and whether you are root or in the group %s", config.Group)
	}
	return c.Info(ctx)
}

func (s status) fields() []app.Field {
	running := s.Version
	if running != "" && s.Installed != "" && s.Installed != s.Version {
		running += "; `systemctl restart bangerd` runs the installed one, and leaves VMs running"
	}
	fields := []app.Field{
		{Name: "Unit", Value: s.Unit}, {Name: "At boot", Value: s.Enabled}, {Name: "Installed", Value: s.Installed},
		{Name: "Running", Value: running}, {Name: "PID", Value: fmt.Sprint(s.PID)}, {Name: "Socket", Value: s.Socket},
		{Name: "VMs", Value: fmt.Sprintf("%d running of %d", s.Running, s.VMs)},
	}
	for _, path := range s.Changed {
		fields = append(fields, app.Field{Name: "Changed", Value: path})
	}
	return fields
}
