package vmcmd

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
)

type statsOptions struct {
	app   *app.App
	out   app.Output
	sel   app.Selection
	refs  []string
	watch bool
	every time.Duration
}

// NewStats returns `banger vm stats`.
func NewStats(a *app.App) *cobra.Command {
	o := &statsOptions{app: a}
	cmd := &cobra.Command{
		Use: "stats [VM...]", Short: "Show what VMs use", Args: app.Args(0, -1, "VMs"),
		Long: `Show what VMs use of the host and in their guests; without names, all that run. CPU is of one processor of the host,
measured over the interval. RESIDENT is the VMM's memory on the host, GUEST what is in use of the guest's memory. ROOT and WORK
are what the disks take on the host, and FILLED how full the guest's fullest file system is. NET is what the guest has received
and sent since it was started. Guests of VMs that are named are asked now; else what they said last is shown, of at most twice
stats_interval ago, so that many guests need not answer at once.`,
		Example: `  banger vm stats
  banger vm stats web --watch
  banger vm stats -o json`,
		ValidArgsFunction: a.CompleteVMs(-1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.refs = args
			return runStats(cmd.Context(), o)
		},
	}
	o.out.Flags(cmd)
	o.sel.Flags(cmd)
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "measure again and again, until Ctrl-C")
	cmd.Flags().DurationVar(&o.every, "interval", time.Second, "time between two measurements")
	return cmd
}

func runStats(ctx context.Context, o *statsOptions) error {
	if o.every < 10*time.Millisecond {
		return errkind.New(api.KindInvalid, "--interval %s is too short", o.every)
	}
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	before, err := c.VMStats(ctx, o.refs...)
	if err != nil {
		return err
	}
	for {
		now, err := o.next(ctx, c, before)
		if err != nil {
			return err
		}
		rows, t, err := app.Select(o.sel, now, statsTable(before))
		if err != nil {
			return err
		}
		if o.watch && o.app.OutTTY && o.out.Form == "table" {
			fmt.Fprint(o.app.Out, "\x1b[H\x1b[2J") // as clear(1) does: the table stays in its place
		}
		if err := app.PrintList(o.app, o.out, rows, t); err != nil || !o.watch {
			return err
		}
		before = now
	}
}

// next measures when the interval is over. VMs that do not run use no processor, and need no second look.
func (o *statsOptions) next(ctx context.Context, c *client.Client, before []api.VMStats) ([]api.VMStats, error) {
	busy := o.watch
	for _, s := range before {
		busy = busy || s.CPUMS > 0
	}
	if !busy {
		return before, nil
	}
	select {
	case <-time.After(o.every):
		return c.VMStats(ctx, o.refs...)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func statsTable(before []api.VMStats) app.Table[api.VMStats] {
	earlier := map[string]api.VMStats{}
	for _, s := range before {
		earlier[s.ID] = s
	}
	guest := func(cell func(api.VMStats) string) func(api.VMStats) string {
		return func(s api.VMStats) string {
			if s.Guest == nil {
				return ""
			}
			return cell(s)
		}
	}
	return app.Table[api.VMStats]{
		Name: func(s api.VMStats) string { return s.Name },
		Columns: []app.Column[api.VMStats]{
			{Head: "NAME", Cell: func(s api.VMStats) string { return s.Name }},
			{Head: "STATE", Cell: func(s api.VMStats) string { return s.State }},
			{Head: "CPU", Cell: func(s api.VMStats) string { return percent(earlier[s.ID], s) }, Amount: func(s api.VMStats) int64 { return s.CPUMS - earlier[s.ID].CPUMS }},
			{Head: "VCPU", Cell: func(s api.VMStats) string { return fmt.Sprint(s.VCPU) }},
			{Head: "RESIDENT", Cell: func(s api.VMStats) string { return app.Size(s.MemResident) }, Amount: func(s api.VMStats) int64 { return s.MemResident }},
			{Head: "GUEST", Cell: guest(func(s api.VMStats) string {
				return app.Size(s.Guest.MemTotal-s.Guest.MemAvailable) + " of " + app.Size(s.Guest.MemTotal)
			})},
			{Head: "ROOT", Cell: func(s api.VMStats) string { return app.Size(s.RootAllocated) }, Amount: func(s api.VMStats) int64 { return s.RootAllocated }},
			{Head: "WORK", Cell: func(s api.VMStats) string { return app.Size(s.DiskAllocated) }, Amount: func(s api.VMStats) int64 { return s.DiskAllocated }},
			{Head: "FILLED", Cell: guest(filled)},
			{Head: "NET IN", Cell: guest(func(s api.VMStats) string { return app.Size(s.Guest.NetRx) })},
			{Head: "NET OUT", Cell: guest(func(s api.VMStats) string { return app.Size(s.Guest.NetTx) })},
			{Head: "PROCESSES", Cell: guest(func(s api.VMStats) string { return fmt.Sprint(s.Guest.Processes) })},
		},
	}
}

// percent is the share of one processor that a VM used between two measurements of one machine.
func percent(before, now api.VMStats) string {
	passed := now.At.Sub(before.At).Milliseconds()
	if passed <= 0 || now.CPUMS < before.CPUMS {
		return ""
	}
	return fmt.Sprintf("%.0f%%", 100*float64(now.CPUMS-before.CPUMS)/float64(passed))
}

// filled is the fullest file system of the guest that can fill.
func filled(s api.VMStats) string {
	fullest, target := -1.0, ""
	for _, d := range s.Guest.Disks {
		if share := float64(d.Used) / float64(max(d.Size, 1)); share > fullest && !d.ReadOnly {
			fullest, target = share, d.Target
		}
	}
	if target == "" {
		return ""
	}
	return fmt.Sprintf("%.0f%% %s", 100*fullest, target)
}
