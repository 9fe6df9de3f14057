package vmcmd

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
)

type logsOptions struct {
	app   *app.App
	p     api.VMLogs
	since string
}

// NewLogs returns `banger vm logs`.
func NewLogs(a *app.App) *cobra.Command {
	o := &logsOptions{app: a}
	cmd := &cobra.Command{
		Use: "logs VM", Short: "Show a VM's console", Args: app.Args(1, 1, "one VM"),
		Long: `Show what a VM has written to its console: the kernel's messages, the agent's, and those of the image's own init. With --source
vmm it is the log of the VMM that runs the VM. Both are there for stopped VMs too. --since takes a duration such as 10m, or a time
such as 14:30, 2026-01-31 14:30 or 2026-01-31T14:30:00Z; a console has no times of its own, so it is true to a few seconds.`,
		Example: `  banger vm logs --tail 20 web
  banger vm logs --since 10m web
  banger vm logs --follow web
  banger vm logs --source vmm web`,
		ValidArgsFunction: a.CompleteVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.p.Ref.Ref = args[0]
			return runLogs(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.p.Follow, "follow", "f", false, "go on with what is written from now on, until Ctrl-C")
	f.IntVarP(&o.p.Tail, "tail", "n", 0, "only that many lines from the end (0: all)")
	f.StringVar(&o.since, "since", "", "only what was printed since that `time`, or for so long")
	f.StringVar(&o.p.Source, "source", "console", "console or vmm")
	cmd.RegisterFlagCompletionFunc("source", cobra.FixedCompletions([]string{"console", "vmm"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func runLogs(ctx context.Context, o *logsOptions) error {
	if o.p.Source != "console" && o.p.Source != "vmm" {
		return errkind.WithHint(errkind.New(api.KindInvalid, "unknown log %q", o.p.Source), "--source is console or vmm")
	}
	if o.p.Tail < 0 {
		return errkind.New(api.KindInvalid, "--tail %d is below zero", o.p.Tail)
	}
	var err error
	if o.p.Since, err = app.Moment(o.since, time.Now()); err != nil {
		return err
	}
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	r, err := c.VMLogs(ctx, o.p)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(o.app.Out, r)
	return err
}
