package workcmd

import (
	"context"
	"fmt"
	"path"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/workspace/source"
)

type prepareOptions struct {
	app       *app.App
	ref, path string
	source    SourceFlags
	guestPath string
	dryRun    bool
	quiet     bool
}

func newPrepare(a *app.App) *cobra.Command {
	o := &prepareOptions{app: a}
	cmd := &cobra.Command{
		Use: "prepare [flags] VM [PATH]", Short: "Carry a git repository into a VM", Args: app.Args(1, 2, "a VM and a path"),
		Long: `Carry the git repository that PATH is in (default: the one you stand in) into a running VM. Tracked files go as they are in your
working tree, with changes; untracked ones with --include-untracked; ignored ones never. The path in the guest is printed.`,
		Example: `  banger vm workspace prepare web
  banger vm workspace prepare --dry-run --include-untracked web ~/src/site
  banger vm workspace prepare --from v1.2 --branch hotfix web`,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 1 {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return a.CompleteVMs(1)(cmd, args, word)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.ref, o.path = args[0], "."
			if len(args) > 1 {
				o.path = args[1]
			}
			return runPrepare(cmd.Context(), o)
		},
	}
	o.source.Flags(cmd)
	cmd.Flags().StringVar(&o.guestPath, "guest-path", "", "directory in the guest (default: /root/NAME of the repository)")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "print what would go, and carry nothing")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	return cmd
}

func runPrepare(ctx context.Context, o *prepareOptions) error {
	if o.guestPath != "" && (!path.IsAbs(o.guestPath) || path.Clean(o.guestPath) != o.guestPath || o.guestPath == "/") {
		return errkind.WithHint(errkind.New(api.KindInvalid, "bad guest path %q", o.guestPath),
			"give an absolute path without . and .., such as /root/project")
	}
	repo, err := source.Inspect(ctx, o.path, o.source.Options)
	if err != nil {
		return err
	}
	src, err := source.Open(ctx, repo)
	if err != nil {
		return err
	}
	defer src.Close()
	if o.dryRun {
		PrintPlan(o.app.Out, src.Plan())
		return nil
	}
	if o.guestPath == "" {
		o.guestPath = GuestPath(repo.Root)
	}
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	prog := o.app.Progress(o.quiet)
	defer prog.End()
	if err := Prepare(ctx, c, o.ref, src, o.guestPath, prog); err != nil {
		prog.Drop()
		return err
	}
	prog.End()
	_, err = fmt.Fprintln(o.app.Out, o.guestPath)
	return err
}
