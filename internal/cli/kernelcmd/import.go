package kernelcmd

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
)

type importOptions struct {
	app   *app.App
	p     api.KernelImport
	quiet bool
}

func newImport(a *app.App) *cobra.Command {
	o := &importOptions{app: a}
	cmd := &cobra.Command{
		Use: "import (--deb PACKAGE | --host | --path FILE)", Short: "Import a kernel", Args: app.Args(0, 0, ""),
		Long: `Import a kernel from a Debian package, from the running host, or from a file. The kernel must be able to reach virtio disks and a
virtio console, built in or by modules; what it lacks is said at once. The kernel's name is printed when it is ready.`,
		Example: `  banger kernel import --deb linux-image-cloud-amd64
  banger kernel import --host --name host
  banger kernel import --name mine --path bzImage --modules build/lib/modules/6.9.1 --config .config`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runImport(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.p.Name, "name", "n", "", "the kernel's name (default: made from its release)")
	f.StringVar(&o.p.Deb, "deb", "", "a Debian package's name, or the path of a .deb")
	f.BoolVar(&o.p.Host, "host", false, "the running host's kernel and modules")
	f.StringVar(&o.p.Path, "path", "", "a kernel image: bzImage or ELF")
	f.StringVar(&o.p.Modules, "modules", "", "with --path: its directory lib/modules/RELEASE")
	f.StringVar(&o.p.Config, "config", "", "with --path: its configuration file, where it is not built in")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	cmd.MarkFlagsMutuallyExclusive("deb", "host", "path")
	cmd.MarkFlagsOneRequired("deb", "host", "path")
	return cmd
}

func runImport(ctx context.Context, o *importOptions) error {
	if o.p.Path == "" && (o.p.Modules != "" || o.p.Config != "") {
		return errkind.New(api.KindInvalid, "--modules and --config go with --path")
	}
	if o.p.Name != "" {
		if err := banger.CheckName("kernel", o.p.Name); err != nil {
			return err
		}
	}
	// The daemon has another working directory.
	for _, p := range []*string{&o.p.Path, &o.p.Modules, &o.p.Config} {
		if err := absolute(p); err != nil {
			return err
		}
	}
	if filepath.Ext(o.p.Deb) == ".deb" {
		if err := absolute(&o.p.Deb); err != nil {
			return err
		}
	}
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	prog := o.app.Progress(o.quiet)
	defer prog.End()
	made, err := o.app.Operate(ctx, c, prog, func(ctx context.Context) (api.OperationRef, error) { return c.KernelImportBegin(ctx, o.p) })
	if err != nil {
		return err
	}
	prog.End()
	k, err := c.KernelGet(ctx, made.Ref)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(o.app.Out, k.Name)
	return err
}

func absolute(p *string) (err error) {
	if *p != "" {
		*p, err = filepath.Abs(*p)
	}
	return err
}
