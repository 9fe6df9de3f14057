package vmcmd

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
)

// each runs do for the VMs that refs name.
func each(ctx context.Context, a *app.App, refs []string, do func(context.Context, *client.Client, app.Target) error) error {
	c, err := a.Client(ctx)
	if err != nil {
		return err
	}
	return a.Each(ctx, refs, resolver(c), func(ctx context.Context, t app.Target) error { return do(ctx, c, t) })
}

// NewStart returns `banger vm start`.
func NewStart(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "start VM...", Short: "Start VMs", Args: app.Args(1, -1, "a VM"),
		Long: `Start VMs that were created or have stopped, with the disks they have, and wait until their agents answer. Several are
started at once; one that fails does not stop the others. The names of those that run are printed.`,
		Example: `  banger vm start web
  banger vm start web db cache`,
		ValidArgsFunction: a.CompleteVMs(-1),
		RunE:              func(cmd *cobra.Command, args []string) error { return runStart(cmd.Context(), a, args) },
	}
}

func runStart(ctx context.Context, a *app.App, refs []string) error {
	return each(ctx, a, refs, func(ctx context.Context, c *client.Client, t app.Target) error {
		_, err := c.VMStart(ctx, t.ID)
		return err
	})
}

type stopOptions struct {
	app     *app.App
	refs    []string
	all     bool
	timeout time.Duration
}

// NewStop returns `banger vm stop`.
func NewStop(a *app.App) *cobra.Command {
	o := &stopOptions{app: a}
	cmd := &cobra.Command{
		Use: "stop VM... | --all", Short: "Stop VMs", Args: app.Args(0, -1, "VMs"),
		Long: `Have the guests end their processes, write everything to their disks and power off; one that does not in time is killed.
Disks and workspaces stay, and "banger vm start" brings a VM back. The system's service does this with all when the host shuts
down.`,
		Example: `  banger vm stop web
  banger vm stop --timeout 1m web db
  banger vm stop --all`,
		ValidArgsFunction: a.CompleteVMs(-1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.refs = args; o.all == (len(args) > 0) {
				return app.Usage(cmd.CommandPath(), "%s needs either VMs or --all", cmd.CommandPath())
			}
			return runStop(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "stop all that run")
	o.timeoutFlag(cmd)
	return cmd
}

func (o *stopOptions) timeoutFlag(cmd *cobra.Command) {
	cmd.Flags().DurationVarP(&o.timeout, "timeout", "t", 20*time.Second, "how long a guest may take before it is killed")
}

func (o *stopOptions) check() error {
	if o.timeout < time.Millisecond {
		return errkind.WithHint(errkind.New(api.KindInvalid, "--timeout %s is too short", o.timeout), "to end a VM at once use `banger vm kill`")
	}
	return nil
}

func runStop(ctx context.Context, o *stopOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	if o.all {
		var err error
		if o.refs, err = live(ctx, o.app); err != nil {
			return err
		}
	}
	return each(ctx, o.app, o.refs, func(ctx context.Context, c *client.Client, t app.Target) error {
		_, err := c.VMStop(ctx, api.VMStop{Ref: api.Ref{Ref: t.ID}, TimeoutMS: o.timeout.Milliseconds()})
		return err
	})
}

// live returns the ids of the VMs that have a machine.
func live(ctx context.Context, a *app.App) ([]string, error) {
	c, err := a.Client(ctx)
	if err != nil {
		return nil, err
	}
	vms, err := c.VMList(ctx)
	var ids []string
	for _, vm := range vms {
		if vm.State == "running" || vm.State == "paused" || vm.State == "starting" {
			ids = append(ids, vm.ID)
		}
	}
	return ids, err
}

// NewRestart returns `banger vm restart`.
func NewRestart(a *app.App) *cobra.Command {
	o := &stopOptions{app: a}
	cmd := &cobra.Command{
		Use: "restart VM...", Short: "Stop VMs and start them again", Args: app.Args(1, -1, "a VM"),
		Long: `Stop VMs as "banger vm stop" does, and start them again. One that does not run is started. Disks and workspaces stay; what runs
in a guest does not.`,
		Example:           `  banger vm restart web`,
		ValidArgsFunction: a.CompleteVMs(-1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.refs = args
			return runRestart(cmd.Context(), o)
		},
	}
	o.timeoutFlag(cmd)
	return cmd
}

func runRestart(ctx context.Context, o *stopOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	return each(ctx, o.app, o.refs, func(ctx context.Context, c *client.Client, t app.Target) error {
		_, err := c.VMRestart(ctx, api.VMRestart{Ref: api.Ref{Ref: t.ID}, TimeoutMS: o.timeout.Milliseconds()})
		return err
	})
}

// NewPause returns `banger vm pause`.
func NewPause(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "pause VM...", Short: "Halt VMs where they are", Args: app.Args(1, -1, "a VM"),
		Long: `Halt the processors of VMs that run. Nothing in the guests goes on, their memory stays, and their clocks are behind when they go on.
A paused VM is not stopped for not being used; "banger vm stop" has it go on to power off.`,
		Example:           `  banger vm pause web`,
		ValidArgsFunction: a.CompleteVMs(-1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return each(cmd.Context(), a, args, func(ctx context.Context, c *client.Client, t app.Target) error {
				_, err := c.VMPause(ctx, t.ID)
				return err
			})
		},
	}
}

// NewResume returns `banger vm resume`.
func NewResume(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "resume VM...", Short: "Let paused VMs go on", Args: app.Args(1, -1, "a VM"),
		Long:              `Let VMs go on that "banger vm pause" has halted.`,
		Example:           `  banger vm resume web`,
		ValidArgsFunction: a.CompleteVMs(-1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return each(cmd.Context(), a, args, func(ctx context.Context, c *client.Client, t app.Target) error {
				_, err := c.VMResume(ctx, t.ID)
				return err
			})
		},
	}
}

type killOptions struct {
	app    *app.App
	refs   []string
	signal string
}

// NewKill returns `banger vm kill`.
func NewKill(a *app.App) *cobra.Command {
	o := &killOptions{app: a}
	cmd := &cobra.Command{
		Use: "kill VM...", Short: "End VMs at once", Args: app.Args(1, -1, "a VM"),
		Long: `End the machines of VMs at once, as pulling the plug does. What a guest had not yet written to its disks is lost; the disks
themselves stay. "banger vm stop" is the gentle way. The signal goes to the process of the VMM, not into the guest: TERM lets a VMM
write what it holds itself, ABRT has it leave a core dump; one that has not ended within 10 seconds is killed.`,
		Example: `  banger vm kill web
  banger vm kill --signal TERM web`,
		ValidArgsFunction: a.CompleteVMs(-1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.refs = args
			return runKill(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVarP(&o.signal, "signal", "s", "KILL", "KILL, TERM, INT, QUIT, HUP or ABRT")
	cmd.RegisterFlagCompletionFunc("signal", cobra.FixedCompletions([]string{"KILL", "TERM", "INT", "QUIT", "HUP", "ABRT"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func runKill(ctx context.Context, o *killOptions) error {
	return each(ctx, o.app, o.refs, func(ctx context.Context, c *client.Client, t app.Target) error {
		_, err := c.VMKill(ctx, api.VMKill{Ref: api.Ref{Ref: t.ID}, Signal: o.signal})
		return err
	})
}

type deleteOptions struct {
	app   *app.App
	refs  []string
	force bool
}

// NewDelete returns `banger vm delete`.
func NewDelete(a *app.App) *cobra.Command {
	o := &deleteOptions{app: a}
	cmd := &cobra.Command{
		Use: "delete VM...", Aliases: []string{"rm"}, Short: "Delete VMs and their disks", Args: app.Args(1, -1, "a VM"),
		Long: `Delete VMs with their disks and everything on them. A VM that runs, and one whose workspace has changes that were not
exported, is refused unless --force is given.`,
		Example: `  banger vm delete web
  banger vm workspace export web --output web.patch && banger vm delete --force web`,
		ValidArgsFunction: a.CompleteVMs(-1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.refs = args
			return runDelete(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVarP(&o.force, "force", "f", false, "delete running VMs and unexported work too")
	return cmd
}

func runDelete(ctx context.Context, o *deleteOptions) error {
	return each(ctx, o.app, o.refs, func(ctx context.Context, c *client.Client, t app.Target) error {
		return c.VMDelete(ctx, api.VMDelete{Ref: api.Ref{Ref: t.ID}, Force: o.force})
	})
}
