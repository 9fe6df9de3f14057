package vmcmd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
)

type pruneOptions struct {
	app    *app.App
	out    app.Output
	older  time.Duration
	dryRun bool
}

// NewPrune returns `banger vm prune`.
func NewPrune(a *app.App) *cobra.Command {
	o := &pruneOptions{app: a}
	cmd := &cobra.Command{
		Use: "prune", Short: "Delete VMs that do not run", Args: app.Args(0, 0, ""),
		Long: `Delete all VMs that do not run, with their disks. Those whose workspaces hold changes that were not exported are kept, and named
on standard error with the reason; "banger vm delete --force" deletes them.`,
		Example: `  banger vm prune --dry-run
  banger vm prune --older-than 168h`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runPrune(cmd.Context(), o) },
	}
	o.out.Flags(cmd)
	cmd.Flags().DurationVar(&o.older, "older-than", 0, "only VMs that nobody has used, started or stopped for so long")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "only show which would be deleted")
	return cmd
}

func runPrune(ctx context.Context, o *pruneOptions) error {
	if o.older < 0 {
		return errkind.New(api.KindInvalid, "--older-than %s is below zero", o.older)
	}
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	pruned, err := c.VMPrune(ctx, api.VMPrune{OlderThanMS: o.older.Milliseconds(), DryRun: o.dryRun})
	if err != nil {
		return err
	}
	if o.out.Form == "table" && o.out.Template == "" {
		for _, k := range pruned.Kept {
			fmt.Fprintf(o.app.Err, "banger: kept %s: %s\n", k.Name, strings.ReplaceAll(k.Reason, "\n", " "))
		}
	}
	if o.out.Form != "table" {
		return app.PrintOne(o.app, o.out, pruned, "", nil)
	}
	return app.PrintList(o.app, o.out, pruned.Deleted, app.Table[api.PrunedVM]{
		Name: func(p api.PrunedVM) string { return p.Name },
		Columns: []app.Column[api.PrunedVM]{
			{Head: "NAME", Cell: func(p api.PrunedVM) string { return p.Name }},
			{Head: "ID", Cell: func(p api.PrunedVM) string { return p.ID }},
			{Head: "FREED", Cell: func(p api.PrunedVM) string { return app.Size(p.Freed) }},
		},
	})
}
