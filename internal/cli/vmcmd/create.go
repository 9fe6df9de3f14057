package vmcmd

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
)

type createOptions struct {
	app   *app.App
	spec  Spec
	start bool
	quiet bool
}

// NewCreate returns `banger vm create`.
func NewCreate(a *app.App) *cobra.Command {
	o := &createOptions{app: a}
	cmd := &cobra.Command{
		Use: "create [flags]", Short: "Create a VM", Args: app.Args(0, 0, ""),
		Long: `Create a VM: reserve its name and make its disks as clones of an image, which takes the same short time whatever the
image's size. Without --start it is not booted. The VM's name is printed on standard output, progress on standard error. Ctrl-C
cancels and leaves nothing behind. Should this program be killed, the creation goes on: "banger operation list" and "show" tell
how it stands, "cancel" ends it. Without any image the default one is built first, once.`,
		Example: `  banger vm create --name web --memory 2G --start
  banger vm create --image debian-systemd --init /sbin/init --disk-size 20G`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runCreate(cmd.Context(), o) },
	}
	o.spec.Flags(a, cmd)
	cmd.Flags().BoolVar(&o.start, "start", false, "boot the VM and wait until its agent answers")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func runCreate(ctx context.Context, o *createOptions) error {
	p, err := o.spec.Create(o.app)
	if err != nil {
		return err
	}
	p.Start = o.start
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	prog := o.app.Progress(o.quiet)
	defer prog.End()
	vm, err := Create(ctx, o.app, c, p, prog)
	if err != nil {
		return err
	}
	prog.End()
	_, err = fmt.Fprintln(o.app.Out, vm.Name)
	return err
}

// Create creates a VM with progress. When ctx ends meanwhile nothing is left of it.
func Create(ctx context.Context, a *app.App, c *client.Client, p api.VMCreate, prog *app.Progress) (api.VM, error) {
	made, err := a.Operate(ctx, c, prog, func(ctx context.Context) (api.OperationRef, error) { return c.VMCreateBegin(ctx, p) })
	if err == nil {
		var vm api.VM
		if vm, err = c.VMGet(ctx, made.Ref); err == nil {
			return vm, nil
		}
	}
	if made.Ref != "" { // it was finished before the cancelling reached it
		err = Discard(ctx, c, made.Ref, err)
	}
	return api.VM{}, err
}

// Discard deletes a VM that holds nothing of the user's because of cause, also when ctx has ended, and returns cause with what
// went wrong on the way.
func Discard(ctx context.Context, c *client.Client, ref string, cause error) error {
	undo, cancel := app.Undo(ctx)
	defer cancel()
	err := c.VMDelete(undo, api.VMDelete{Ref: api.Ref{Ref: ref}, Force: true})
	if err != nil && !errkind.Is(err, api.KindNotFound) {
		return errkind.WithHint(fmt.Errorf("%w; delete VM %q: %w", cause, ref, err), "run `banger vm delete --force %s`", ref)
	}
	return cause
}
