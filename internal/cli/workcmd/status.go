package workcmd

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/internal/cli/app"
)

type statusOptions struct {
	app *app.App
	out app.Output
	ref string
}

func newStatus(a *app.App) *cobra.Command {
	o := &statusOptions{app: a}
	cmd := &cobra.Command{
		Use: "status VM", Short: "Show what has changed in a VM's workspace", Args: app.Args(1, 1, "one VM"),
		Long: `Show what has changed in a running VM's workspace since it was carried in, and whether an export has carried that out. With -q only
the changed files' names are printed.`,
		Example: `  banger vm workspace status web
  banger vm workspace status web --format '{{.Unexported}}'`,
		ValidArgsFunction: a.CompleteVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.ref = args[0]
			return runStatus(cmd.Context(), o)
		},
	}
	o.out.Flags(cmd)
	return cmd
}

func runStatus(ctx context.Context, o *statusOptions) error {
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	st, err := c.WorkStatus(ctx, o.ref)
	if err != nil {
		return err
	}
	var names, files []string
	for _, f := range st.Status.Files {
		names = append(names, f.Path)
		files = append(files, f.Status+" "+f.Path)
	}
	if o.out.Quiet && o.out.Template == "" {
		for _, n := range names {
			fmt.Fprintln(o.app.Out, n)
		}
		return nil
	}
	state := "no changes"
	switch {
	case st.Unexported:
		state = "changes that were not exported"
	case st.Status.Changed:
		state = "changes, exported " + app.Stamp(st.Workspace.Exported)
	}
	return app.PrintOne(o.app, o.out, st, "", []app.Field{
		{Name: "Workspace", Value: st.Workspace.GuestPath}, {Name: "From", Value: st.Workspace.Source},
		{Name: "Branch", Value: st.Status.Branch}, {Name: "Head", Value: st.Status.Head},
		{Name: "Base", Value: st.Workspace.BaseCommit}, {Name: "State", Value: state},
		{Name: "Files", Value: strings.Join(files, "\n")},
	})
}
