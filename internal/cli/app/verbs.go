package app

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/client"
)

// List makes cmd the verb that lists a noun: one call of the client, printed in the form that was asked for. table gets the
// present time, from which ages are counted.
func List[T any](a *App, cmd *cobra.Command, list func(*client.Client, context.Context) ([]T, error), table func(now time.Time) Table[T]) *cobra.Command {
	var out Output
	cmd.Aliases, cmd.Args, cmd.ValidArgsFunction = []string{"ls"}, Args(0, 0, ""), cobra.NoFileCompletions
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.Client(cmd.Context())
		if err != nil {
			return err
		}
		items, err := list(c, cmd.Context())
		if err != nil {
			return err
		}
		return PrintList(a, out, items, table(time.Now()))
	}
	out.Flags(cmd)
	return cmd
}

// Show makes cmd the verb that describes what its arguments name: one call of the client for each.
func Show[T any](a *App, cmd *cobra.Command, get func(*client.Client, context.Context, string) (T, error),
	describe func(T) (name string, fields []Field)) *cobra.Command {
	var out Output
	cmd.Aliases = []string{"inspect"}
	cmd.RunE = func(cmd *cobra.Command, refs []string) error {
		c, err := a.Client(cmd.Context())
		if err != nil {
			return err
		}
		one := func(ctx context.Context, ref string) (T, error) { return get(c, ctx, ref) }
		return ShowEach(cmd.Context(), a, out, refs, one, describe)
	}
	out.Flags(cmd)
	return cmd
}
