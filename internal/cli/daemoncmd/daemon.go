// Package daemoncmd is `banger daemon`.
package daemoncmd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
)

// New returns `banger daemon` with its verbs.
func New(a *app.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "daemon", Short: "Start, stop and look at the daemon", Args: cobra.NoArgs,
		Long: `The daemon, bangerd, keeps all state and does the work. Other commands start it when it does not run, unless --no-start is given. VMs
outlive it: stopping it, or killing it, leaves them running, and the next daemon takes them over.`,
	}
	cmd.AddCommand(newStart(a), newStop(a), newStatus(a), newLogs(a), newMetrics(a))
	return cmd
}

func newStart(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "start", Short: "Start the daemon", Args: app.Args(0, 0, ""),
		Long:              "Start the daemon if it does not run, and return once it answers. Its process id is printed.",
		Example:           `  banger daemon start`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runStart(cmd.Context(), a) },
	}
}

func runStart(ctx context.Context, a *app.App) error {
	c, err := a.RunningClient(ctx, false)
	if errors.Is(err, client.ErrNotRunning) {
		paths, perr := a.Paths()
		if perr != nil {
			return perr
		}
		c, err = a.StartDaemon(ctx, paths)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.Out, c.Daemon().PID)
	return err
}

func newStop(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "stop", Short: "Stop the daemon", Args: app.Args(0, 0, ""),
		Long:              "Stop the daemon and return once it has ended. VMs keep running. A daemon that does not run is fine.",
		Example:           `  banger daemon stop`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runStop(cmd.Context(), a) },
	}
}

func runStop(ctx context.Context, a *app.App) error {
	err := a.StopDaemon(ctx)
	if errors.Is(err, client.ErrNotRunning) {
		fmt.Fprintln(a.Err, "the daemon was not running")
		return nil
	}
	return err
}

type statusOptions struct {
	app *app.App
	out app.Output
}

func newStatus(a *app.App) *cobra.Command {
	o := &statusOptions{app: a}
	cmd := &cobra.Command{
		Use: "status", Short: "Show the daemon's state", Args: app.Args(0, 0, ""),
		Long: `Show whether the daemon runs, since when, where its files are, and what it would run VMs with. It is never started by this command;
when it does not run, the exit status is 69.`,
		Example: `  banger daemon status
  banger daemon status --format '{{.StateDir}}'`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runStatus(cmd.Context(), o) },
	}
	o.out.Flags(cmd)
	return cmd
}

func runStatus(ctx context.Context, o *statusOptions) error {
	c, err := o.app.RunningClient(ctx, true)
	if err != nil {
		return err
	}
	i, err := c.Info(ctx)
	if err != nil {
		return err
	}
	since := i.StartedAt
	if t, err := time.Parse(time.RFC3339, i.StartedAt); err == nil {
		since = app.Stamp(t) + " (" + app.Age(time.Now(), t) + " ago)"
	}
	protocol := fmt.Sprint(i.Protocol)
	if i.Protocol != api.ProtocolVersion {
		protocol += fmt.Sprintf(" (this program: %d; stop the daemon to use it)", api.ProtocolVersion)
	}
	return app.PrintOne(o.app, o.out, i, fmt.Sprint(i.PID), []app.Field{
		{Name: "State", Value: "running"}, {Name: "PID", Value: fmt.Sprint(i.PID)}, {Name: "Version", Value: i.Version},
		{Name: "Protocol", Value: protocol}, {Name: "Since", Value: since},
		{Name: "VMs", Value: fmt.Sprintf("%d running of %d", i.Running, i.VMs)}, {Name: "VMM", Value: i.VMM},
		{Name: "  because", Value: i.VMMReason}, {Name: "Disk cloner", Value: i.Cloner}, {Name: "Network", Value: i.Network},
		{Name: "  because", Value: i.NetworkReason},
		{Name: "Root", Value: i.Root}, {Name: "State files", Value: i.StateDir}, {Name: "Sockets", Value: i.RunDir},
		{Name: "Cache", Value: i.CacheDir}, {Name: "Configuration", Value: i.Config}, {Name: "Log", Value: i.Log},
	})
}
