package imagecmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/cli/app"
)

func newBuild(a *app.App) *cobra.Command {
	cmd := newBuildRecipe(a)
	cmd.AddCommand(newBuildDebian(a))
	return cmd
}

// defaultSuite is the release that the default image, called debian, is made of.
const defaultSuite = "bookworm"

type debianOptions struct {
	app   *app.App
	p     api.ImageBuild
	root  app.SizeFlag
	quiet bool
}

func newBuildDebian(a *app.App) *cobra.Command {
	o := &debianOptions{app: a}
	cmd := &cobra.Command{
		Use: "debian [NAME]", Short: "Build a Debian image", Args: app.Args(0, 1, "at most one name"),
		Long: `Build an image of a Debian release with mmdebstrap, from the packages of the host's own sources, which apt verifies. It holds a small
set of tools for work (git, curl, less, an editor, sudo) and what --package adds. The image's name is debian, or
debian-SUITE for another release, unless one is given; it is printed when the image is ready. Ctrl-C cancels and leaves nothing behind.`,
		Example: `  banger image build debian
  banger image build debian go-dev --package golang --package make
  banger image build debian with-systemd --package systemd-sysv --init /sbin/init`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.p.Name = args[0]
			}
			return runBuildDebian(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.p.Suite, "suite", defaultSuite, "Debian release")
	f.StringVar(&o.p.Variant, "variant", "", "package set of mmdebstrap to begin with (default: apt)")
	f.StringArrayVar(&o.p.Packages, "package", nil, "package to add (repeatable)")
	f.StringVar(&o.p.Mirror, "mirror", "", "package mirror to use (default: the host's apt sources)")
	f.StringVar(&o.p.Kernel, "kernel", "", "kernel to boot it with (default: the configuration's)")
	f.StringVar(&o.p.Init, "init", "", "PID 1 of the guest: agent, or a path such as /sbin/init (default: agent)")
	f.Var(&o.root, "root-size", "size of the root disk, such as 4G")
	f.BoolVar(&o.p.Replace, "replace", false, "take the name over from an image that has it")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	cmd.RegisterFlagCompletionFunc("kernel", app.FlagCompletion(a.CompleteKernels(-1)))
	return cmd
}

func runBuildDebian(ctx context.Context, o *debianOptions) error {
	if o.p.Name == "" {
		o.p.Name = "debian"
		if o.p.Suite != defaultSuite {
			o.p.Name += "-" + o.p.Suite
		}
	}
	if err := banger.CheckName("image", o.p.Name); err != nil {
		return err
	}
	o.p.RootSize = int64(o.root)
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	return await(ctx, o.app, c, o.p.Name, o.quiet, func(ctx context.Context) (api.OperationRef, error) { return c.ImageBuildBegin(ctx, o.p) })
}

// await begins the build of the image name, waits for its end, and prints the name.
func await(ctx context.Context, a *app.App, c *client.Client, name string, quiet bool, begin func(context.Context) (api.OperationRef, error)) error {
	prog := a.Progress(quiet)
	defer prog.End()
	if _, err := a.Operate(ctx, c, prog, begin); err != nil {
		return err
	}
	prog.End()
	_, err := fmt.Fprintln(a.Out, name)
	return err
}
