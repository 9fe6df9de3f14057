// Package kernelcmd is `banger kernel` with one file a verb, small ones together.
package kernelcmd

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
)

// New returns `banger kernel` with its verbs.
func New(a *app.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "kernel", Short: "Import, list and delete kernels", Args: cobra.NoArgs,
		Long: `A kernel is a kernel image with its modules and the facts of its configuration that matter to a VM. Images name the kernel they are
booted with. The default one is imported by the first "banger vm run" that needs it.`,
	}
	cmd.AddCommand(newList(a), newShow(a), newImport(a), newDelete(a))
	return cmd
}

func newList(a *app.App) *cobra.Command {
	return app.List(a, &cobra.Command{
		Use: "list", Short: "List kernels",
		Long:    "List all kernels, with their releases and the images that name them.",
		Example: `  banger kernel list`,
	}, (*client.Client).KernelList, table)
}

func table(now time.Time) app.Table[api.Kernel] {
	return app.Table[api.Kernel]{
		Name: func(k api.Kernel) string { return k.Name },
		Columns: []app.Column[api.Kernel]{
			{Head: "NAME", Cell: func(k api.Kernel) string { return k.Name }},
			{Head: "ID", Cell: func(k api.Kernel) string { return k.ID }},
			{Head: "RELEASE", Cell: func(k api.Kernel) string { return k.Release }},
			{Head: "ARCH", Cell: func(k api.Kernel) string { return k.Arch }},
			{Head: "SOURCE", Cell: func(k api.Kernel) string { return k.Source }},
			{Head: "ON DISK", Cell: func(k api.Kernel) string { return app.Size(k.Allocated) }},
			{Head: "IMAGES", Cell: func(k api.Kernel) string { return strings.Join(k.Images, ",") }},
			{Head: "AGE", Cell: func(k api.Kernel) string { return app.Age(now, k.Created) }},
		},
	}
}

func newShow(a *app.App) *cobra.Command {
	return app.Show(a, &cobra.Command{
		Use: "show KERNEL...", Short: "Show all about kernels", Args: app.Args(1, -1, "a kernel"),
		Long:              "Show everything that is known of kernels: release, source, the facts of their configuration, files, and the images that name them.",
		Example:           `  banger kernel show debian-cloud`,
		ValidArgsFunction: a.CompleteKernels(-1),
	}, (*client.Client).KernelGet, describe)
}

func describe(k api.Kernel) (string, []app.Field) {
	var facts []string
	for _, name := range slices.Sorted(maps.Keys(k.Facts)) {
		facts = append(facts, name+"="+k.Facts[name])
	}
	return k.Name, []app.Field{
		{Name: "Name", Value: k.Name}, {Name: "ID", Value: k.ID}, {Name: "Release", Value: k.Release},
		{Name: "Architecture", Value: k.Arch}, {Name: "Source", Value: k.Source}, {Name: "Format", Value: k.Format},
		{Name: "On disk", Value: app.Size(k.Allocated)}, {Name: "Created", Value: app.Stamp(k.Created)},
		{Name: "Directory", Value: k.Dir}, {Name: "Images", Value: strings.Join(k.Images, " ")},
		{Name: "Facts", Value: strings.Join(facts, "\n")},
	}
}

func newDelete(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "delete KERNEL...", Aliases: []string{"rm"}, Short: "Delete kernels", Args: app.Args(1, -1, "a kernel"),
		Long:              "Delete kernels that neither an image nor a VM uses, with their files.",
		Example:           `  banger kernel delete old`,
		ValidArgsFunction: a.CompleteKernels(-1),
		RunE:              func(cmd *cobra.Command, args []string) error { return runDelete(cmd.Context(), a, args) },
	}
}

func runDelete(ctx context.Context, a *app.App, refs []string) error {
	c, err := a.Client(ctx)
	if err != nil {
		return err
	}
	resolve := func(ctx context.Context, ref string) (app.Target, error) {
		k, err := c.KernelGet(ctx, ref)
		return app.Target{ID: k.ID, Name: k.Name}, err
	}
	return a.Each(ctx, refs, resolve, func(ctx context.Context, t app.Target) error { return c.KernelDelete(ctx, t.ID) })
}
