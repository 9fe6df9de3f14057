// Package opcmd is `banger operation`.
package opcmd

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

// New returns `banger operation` with its verbs.
func New(a *app.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "operation", Aliases: []string{"op"}, Short: "Follow and cancel long-running work", Args: cobra.NoArgs,
		Long: `An operation is a long piece of work of the daemon: creating a VM, building an image, importing a kernel. It goes on when the
client that began it goes away, and the daemon remembers how it ended.`,
	}
	cmd.AddCommand(newList(a), newShow(a), newCancel(a))
	return cmd
}

func newList(a *app.App) *cobra.Command {
	return app.List(a, &cobra.Command{
		Use: "list", Short: "List operations",
		Long:    "List the operations that run and those that have ended lately, newest first.",
		Example: `  banger operation list`,
	}, (*client.Client).OperationList, table)
}

func table(now time.Time) app.Table[api.Operation] {
	return app.Table[api.Operation]{
		Name: func(op api.Operation) string { return op.ID },
		Columns: []app.Column[api.Operation]{
			{Head: "ID", Cell: func(op api.Operation) string { return op.ID }},
			{Head: "KIND", Cell: func(op api.Operation) string { return op.Kind }},
			{Head: "SUBJECT", Cell: func(op api.Operation) string { return op.Subject }},
			{Head: "STATE", Cell: func(op api.Operation) string { return string(op.State) }},
			{Head: "STAGE", Cell: func(op api.Operation) string { return op.Stage }},
			{Head: "TOOK", Cell: func(op api.Operation) string { return took(op, now) }},
			{Head: "AGE", Cell: func(op api.Operation) string { return app.Age(now, op.Created) }},
		},
	}
}

func took(op api.Operation, now time.Time) string {
	end := op.Ended
	if end.IsZero() {
		end = now
	}
	return fmt.Sprintf("%.2fs", end.Sub(op.Created).Seconds())
}

func newShow(a *app.App) *cobra.Command {
	return app.Show(a, &cobra.Command{
		Use: "show OPERATION...", Short: "Show all about operations", Args: app.Args(1, -1, "an operation"),
		Long:              "Show operations with their stages, what each took, and how they ended.",
		Example:           `  banger operation show 3f9c`,
		ValidArgsFunction: a.CompleteOperations(-1),
	}, (*client.Client).OperationGet, describe)
}

func describe(op api.Operation) (string, []app.Field) {
	f := []app.Field{
		{Name: "ID", Value: op.ID}, {Name: "Kind", Value: op.Kind}, {Name: "Subject", Value: op.Subject},
		{Name: "State", Value: string(op.State)}, {Name: "Created", Value: app.Stamp(op.Created)},
		{Name: "Ended", Value: app.Stamp(op.Ended)}, {Name: "Took", Value: took(op, time.Now())},
	}
	if op.Error != nil {
		f = append(f, app.Field{Name: "Error", Value: op.Error.Message}, app.Field{Name: "Hint", Value: op.Error.Hint})
	}
	for _, s := range op.Stages {
		v := "…"
		if s.TookMS >= 0 {
			v = fmt.Sprintf("%.2fs", float64(s.TookMS)/1000)
		}
		f = append(f, app.Field{Name: "  " + s.Name, Value: v})
	}
	return op.ID, f
}

func newCancel(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "cancel OPERATION...", Short: "Cancel operations", Args: app.Args(1, -1, "an operation"),
		Long:              "Cancel operations that run, and wait until what they had made has been removed. Those that have ended are an error.",
		Example:           `  banger operation cancel 3f9c`,
		ValidArgsFunction: a.CompleteOperations(-1),
		RunE:              func(cmd *cobra.Command, args []string) error { return runCancel(cmd.Context(), a, args) },
	}
}

func runCancel(ctx context.Context, a *app.App, refs []string) error {
	c, err := a.Client(ctx)
	if err != nil {
		return err
	}
	resolve := func(ctx context.Context, ref string) (app.Target, error) {
		op, err := c.OperationGet(ctx, ref)
		if err == nil && op.State.Done() {
			err = errkind.New(api.KindPrecondition, "operation %s has ended: it %s", op.ID, op.State)
		}
		return app.Target{ID: op.ID, Name: op.ID}, err
	}
	return a.Each(ctx, refs, resolve, func(ctx context.Context, t app.Target) error { return c.OperationCancel(ctx, t.ID) })
}
