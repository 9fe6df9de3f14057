// Package imagecmd is `banger image` with one file a verb, small ones together.
package imagecmd

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
)

// New returns `banger image` with its verbs.
func New(a *app.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "image", Short: "Pull, build, list and delete images", Args: cobra.NoArgs,
		Long: `An image is a root file system that VMs are cloned from, with the kernel it boots and what becomes PID 1. It never changes once it
has been built. The default image is built by the first "banger vm run" that needs it.`,
	}
	cmd.AddCommand(newList(a), newShow(a), newBuild(a), newPull(a), newDelete(a))
	return cmd
}

func newList(a *app.App) *cobra.Command {
	return app.List(a, &cobra.Command{
		Use: "list", Short: "List images",
		Long: "List all images, with their kernels, sizes, and how many VMs use each.",
		Example: `  banger image list
  banger image list -q`,
	}, (*client.Client).ImageList, table)
}

func table(now time.Time) app.Table[api.Image] {
	return app.Table[api.Image]{
		Name: func(i api.Image) string { return i.Name },
		Columns: []app.Column[api.Image]{
			{Head: "NAME", Cell: func(i api.Image) string { return i.Name }},
			{Head: "ID", Cell: func(i api.Image) string { return i.ID }},
			{Head: "SOURCE", Cell: func(i api.Image) string { return i.Source }},
			{Head: "KERNEL", Cell: func(i api.Image) string { return i.Kernel }},
			{Head: "INIT", Cell: func(i api.Image) string { return i.Init }},
			{Head: "SIZE", Cell: func(i api.Image) string { return app.Size(i.RootSize) }},
			{Head: "ON DISK", Cell: func(i api.Image) string { return app.Size(i.Allocated) }},
			{Head: "VMS", Cell: func(i api.Image) string { return fmt.Sprint(len(i.VMs)) }},
			{Head: "AGE", Cell: func(i api.Image) string { return app.Age(now, i.Created) }},
		},
	}
}

func newShow(a *app.App) *cobra.Command {
	return app.Show(a, &cobra.Command{
		Use: "show IMAGE...", Short: "Show all about images", Args: app.Args(1, -1, "an image"),
		Long:              "Show everything that is known of images: what they were made from, digest, sizes, files, and the VMs that use them.",
		Example:           `  banger image show debian`,
		ValidArgsFunction: a.CompleteImages(-1),
	}, (*client.Client).ImageGet, describe)
}

func describe(i api.Image) (string, []app.Field) {
	f := []app.Field{
		{Name: "Name", Value: i.Name}, {Name: "ID", Value: i.ID}, {Name: "Managed", Value: fmt.Sprint(i.Managed)},
		{Name: "Source", Value: i.Source}, {Name: "Digest", Value: i.Digest}, {Name: "Kernel", Value: i.Kernel},
		{Name: "Init", Value: i.Init}, {Name: "Root disk", Value: app.Size(i.RootSize)},
		{Name: "Work disk", Value: app.Size(i.WorkSize)}, {Name: "On disk", Value: app.Size(i.Allocated)},
		{Name: "Packages", Value: fmt.Sprint(i.Packages)}, {Name: "Created", Value: app.Stamp(i.Created)},
		{Name: "Directory", Value: i.Dir}, {Name: "VMs", Value: strings.Join(i.VMs, " ")},
	}
	if r := i.Run; r != nil {
		f = append(f, app.Field{Name: "Command", Value: strings.Join(r.Command, " ")}, app.Field{Name: "User", Value: r.User},
			app.Field{Name: "Working directory", Value: r.Dir}, app.Field{Name: "Environment", Value: strings.Join(r.Env, "\n")})
	}
	return i.Name, f
}

func newDelete(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "delete IMAGE...", Aliases: []string{"rm"}, Short: "Delete images", Args: app.Args(1, -1, "an image"),
		Long:              "Delete images that no VM uses, with their files.",
		Example:           `  banger image delete debian-old`,
		ValidArgsFunction: a.CompleteImages(-1),
		RunE:              func(cmd *cobra.Command, args []string) error { return runDelete(cmd.Context(), a, args) },
	}
}

func runDelete(ctx context.Context, a *app.App, refs []string) error {
	c, err := a.Client(ctx)
	if err != nil {
		return err
	}
	return a.Each(ctx, refs, resolver(c), func(ctx context.Context, t app.Target) error { return c.ImageDelete(ctx, t.ID) })
}

func resolver(c *client.Client) func(context.Context, string) (app.Target, error) {
	return func(ctx context.Context, ref string) (app.Target, error) {
		i, err := c.ImageGet(ctx, ref)
		return app.Target{ID: i.ID, Name: i.Name}, err
	}
}
