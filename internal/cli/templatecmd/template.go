// Package templatecmd is `banger template` with its verbs.
package templatecmd

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
)

// New returns `banger template` with its verbs.
func New(a *app.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "template", Short: "Build, list and delete templates for warm starts", Args: cobra.NoArgs,
		Long: `A template is a guest that was booted once, is nobody's yet, and was saved. VMs with its image, kernel, processors and memory begin
with it in place of a boot, and become themselves: with a name, keys, addresses and random numbers of their own. The first start of
a kind of VM boots, and a template for the next is made in the background. "banger vm show" says how a VM was started, and why.`,
	}
	cmd.AddCommand(newList(a), newBuild(a), newDelete(a), newPrune(a))
	return cmd
}

func newList(a *app.App) *cobra.Command {
	return app.List(a, &cobra.Command{
		Use: "list", Short: "List templates",
		Long:    "List all templates; the one that was used last comes last. One that is damaged says so, and is made anew when it is needed.",
		Example: `  banger template list`,
	}, (*client.Client).TemplateList, table)
}

func table(now time.Time) app.Table[api.Template] {
	return app.Table[api.Template]{
		Name: func(t api.Template) string { return t.ID },
		Columns: []app.Column[api.Template]{
			{Head: "ID", Cell: func(t api.Template) string { return t.ID }},
			{Head: "IMAGE", Cell: func(t api.Template) string { return t.Image }},
			{Head: "VCPU", Cell: func(t api.Template) string { return fmt.Sprint(t.VCPU) }, Amount: func(t api.Template) int64 { return int64(t.VCPU) }},
			{Head: "MEMORY", Cell: func(t api.Template) string { return app.Size(int64(t.MemMiB) << 20) }, Amount: func(t api.Template) int64 { return int64(t.MemMiB) }},
			{Head: "ENGINE", Cell: func(t api.Template) string { return t.Engine }},
			{Head: "ON DISK", Cell: func(t api.Template) string { return app.Size(t.Size) }, Amount: func(t api.Template) int64 { return t.Size }},
			{Head: "USED", Cell: func(t api.Template) string { return app.Age(now, t.LastUsed) }, Amount: func(t api.Template) int64 { return -t.LastUsed.UnixNano() }},
			{Head: "ERROR", Cell: func(t api.Template) string { return t.Error }},
		},
	}
}

type buildOptions struct {
	app    *app.App
	p      api.TemplateBuild
	memory app.SizeFlag
	quiet  bool
}

func newBuild(a *app.App) *cobra.Command {
	o := &buildOptions{app: a}
	cmd := &cobra.Command{
		Use: "build", Short: "Make a template now", Args: app.Args(0, 0, ""),
		Long: `Make the template for VMs with these properties now, so that already the first of them starts warm; one that there is stays. Its id
is printed.`,
		Example: `  banger template build
  banger template build --image go-dev --memory 2G --vcpu 2`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runBuild(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.p.Image, "image", "", "the VMs' image (default: default_image of the configuration; built when missing)")
	f.StringVar(&o.p.Kernel, "kernel", "", "the VMs' kernel (default: the image's)")
	f.StringVar(&o.p.VMM, "vmm", "", "VMM to run them: auto, qemu or firecracker (default: the configuration's)")
	f.IntVar(&o.p.VCPU, "vcpu", 0, "number of virtual processors (default: the configuration's)")
	f.Var(&o.memory, "memory", "memory, such as 512M or 2G (default: the configuration's)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	cmd.RegisterFlagCompletionFunc("image", app.FlagCompletion(a.CompleteImages(-1)))
	cmd.RegisterFlagCompletionFunc("kernel", app.FlagCompletion(a.CompleteKernels(-1)))
	return cmd
}

func runBuild(ctx context.Context, o *buildOptions) error {
	o.p.MemMiB = int(o.memory >> 20)
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	prog := o.app.Progress(o.quiet)
	defer prog.End()
	done, err := o.app.Operate(ctx, c, prog, func(ctx context.Context) (api.OperationRef, error) { return c.TemplateBuildBegin(ctx, o.p) })
	if err != nil {
		return err
	}
	prog.End()
	_, err = fmt.Fprintln(o.app.Out, done.Ref)
	return err
}

func newDelete(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "delete TEMPLATE...", Aliases: []string{"rm"}, Short: "Delete templates", Args: app.Args(1, -1, "a template"),
		Long:              "Delete templates by their ids. VMs that began with them go on; the next start of such a VM boots, and a new one is made.",
		Example:           `  banger template delete 0123456789ab`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return runDelete(cmd.Context(), a, args) },
	}
}

func runDelete(ctx context.Context, a *app.App, ids []string) error {
	c, err := a.Client(ctx)
	if err != nil {
		return err
	}
	itself := func(_ context.Context, id string) (app.Target, error) { return app.Target{ID: id, Name: id}, nil }
	return a.Each(ctx, ids, itself, func(ctx context.Context, t app.Target) error { return c.TemplateDelete(ctx, t.ID) })
}

type pruneOptions struct {
	app *app.App
	out app.Output
	all bool
}

func newPrune(a *app.App) *cobra.Command {
	o := &pruneOptions{app: a}
	cmd := &cobra.Command{
		Use: "prune", Short: "Delete templates that are of no use", Args: app.Args(0, 0, ""),
		Long: `Delete the templates with which no VM could begin any more, because an image, a kernel, banger or the VMM was changed or a file of
theirs is damaged, and those that were used longest ago where all take more than template_budget.`,
		Example: `  banger template prune
  banger template prune --all`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runPrune(cmd.Context(), o) },
	}
	o.out.Flags(cmd)
	cmd.Flags().BoolVar(&o.all, "all", false, "delete all templates")
	return cmd
}

func runPrune(ctx context.Context, o *pruneOptions) error {
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	gone, err := c.TemplatePrune(ctx, api.TemplatePrune{All: o.all})
	if err != nil {
		return err
	}
	return app.PrintList(o.app, o.out, gone, table(time.Now()))
}
