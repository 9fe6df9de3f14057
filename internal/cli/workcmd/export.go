package workcmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/workspace"
)

type exportOptions struct {
	app    *app.App
	p      api.WorkExport
	output string
	apply  bool
	repo   string
}

func newExport(a *app.App) *cobra.Command {
	o := &exportOptions{app: a}
	cmd := &cobra.Command{
		Use: "export [flags] VM", Short: "Bring the changes of a VM's workspace back", Args: app.Args(1, 1, "one VM"),
		Long: `Export what has changed in a running VM's workspace since it was carried in: commits, staged, unstaged and untracked files alike, but
not ignored ones. A patch, which is binary-safe and for "git apply", goes to standard output unless --output is given. --apply
applies it to the working tree of the repository the workspace came from; on a conflict nothing there is changed. A bundle holds the
guest's commits, a tar its files. The guest's own repository, index and stash stay as they are.`,
		Example: `  banger vm workspace export web > web.patch
  banger vm workspace export --apply web
  banger vm workspace export --format bundle --output web.bundle web && git fetch web.bundle`,
		ValidArgsFunction: a.CompleteVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.p.Ref.Ref = args[0]
			return runExport(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.p.Format, "format", "patch", "patch, bundle or tar")
	f.StringVar(&o.p.Base, "base", "import", "what a patch is made against: import (what was carried in) or commit (its commit)")
	f.StringVarP(&o.output, "output", "o", "-", "file to write; - is standard output")
	f.BoolVar(&o.apply, "apply", false, "apply the changes to the repository's working tree")
	f.StringVar(&o.repo, "repo", "", "with --apply: the repository (default: the one the workspace came from)")
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"patch", "bundle", "tar"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("base", cobra.FixedCompletions([]string{"import", "commit"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o *exportOptions) check() error {
	invalid := func(format string, args ...any) error { return errkind.New(api.KindInvalid, format, args...) }
	f := o.p.Format
	switch {
	case f != "patch" && f != "bundle" && f != "tar":
		return errkind.WithHint(invalid("unknown export format %q", f), "use patch, bundle or tar")
	case o.p.Base != "import" && o.p.Base != "commit":
		return errkind.WithHint(invalid("unknown base %q", o.p.Base), "use import or commit")
	case o.p.Base == "commit" && f != "patch":
		return invalid("--base commit is for patches")
	case o.apply && f != "patch":
		return invalid("--apply needs a patch, not a %s", f)
	case o.apply && o.p.Base == "commit":
		return errkind.WithHint(invalid("--apply is against what was carried in"), "leave --base out")
	case o.repo != "" && !o.apply:
		return invalid("--repo goes with --apply")
	case f != "patch" && o.output == "-" && o.app.OutTTY:
		return errkind.WithHint(invalid("a %s is not for a terminal", f), "use --output FILE")
	}
	return nil
}

func runExport(ctx context.Context, o *exportOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	vm, err := c.VMGet(ctx, o.p.Ref.Ref)
	if err != nil {
		return err
	}
	if vm.Workspace == nil {
		return errkind.WithHint(errkind.New(api.KindNotFound, "VM %q has no workspace", vm.Name),
			"carry one in with `banger vm workspace prepare %s PATH`", vm.Name)
	}
	if o.output == "-" && !o.apply {
		return exportTo(ctx, c, vm, o.p, o.app.Out)
	}
	done, err := Export(ctx, c, vm, o.p, func(format string) (string, error) {
		if o.output != "-" {
			return o.output, nil
		}
		return PatchFile(o.app, vm)
	})
	if err != nil {
		return err
	}
	return Tell(ctx, o.app, vm, done, o.apply, o.repo)
}

// exportTo writes the export to a stream, which counts as stored when it has been written.
func exportTo(ctx context.Context, c *client.Client, vm api.VM, p api.WorkExport, w io.Writer) error {
	p.Ref.Ref = vm.ID
	reply, r, err := c.WorkExport(ctx, p)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := convert(ctx, vm, p.Format, reply, r, w); err != nil {
		return err
	}
	return c.WorkExported(ctx, vm.ID, reply.Status.Tree)
}

// PatchFile names a new file in banger's directory of patches: REPOSITORY-VM-TIME.patch.
func PatchFile(a *app.App, vm api.VM) (string, error) {
	dir, err := a.PatchesDir()
	if err != nil {
		return "", err
	}
	if err := host.PrivateDir(dir); err != nil {
		return "", err
	}
	base := fmt.Sprintf("%s-%s-%s", filepath.Base(vm.Workspace.GuestPath), vm.Name, time.Now().UTC().Format("20060102T150405Z"))
	for n := 0; ; n++ {
		name := filepath.Join(dir, base+".patch")
		if n > 0 {
			name = filepath.Join(dir, fmt.Sprintf("%s-%d.patch", base, n))
		}
		if _, err := os.Lstat(name); os.IsNotExist(err) {
			return name, nil
		}
	}
}

// Tell says on standard error what an export holds and how to use it, after it has been applied to the working tree of repo
// (empty: the workspace's source) if apply says so.
func Tell(ctx context.Context, a *app.App, vm api.VM, done Exported, apply bool, repo string) error {
	if done.File == "" {
		fmt.Fprintf(a.Err, "banger: no changes in %s of %s\n", vm.Workspace.GuestPath, vm.Name)
		return nil
	}
	if repo == "" {
		repo = vm.Workspace.Source
	}
	abs, err := filepath.Abs(done.File)
	if err != nil {
		return err
	}
	n := len(done.Status.Files)
	files := fmt.Sprintf("%d files", n)
	if n == 1 {
		files = "1 file"
	}
	fmt.Fprintf(a.Err, "banger: %s changed in %s of %s, saved in %s\n", files, vm.Workspace.GuestPath, vm.Name, abs)
	command := fmt.Sprintf("git -C %s apply %s", app.ShellQuote(repo), app.ShellQuote(abs))
	switch {
	case apply:
		if _, err := workspace.Apply(ctx, repo, abs); err != nil {
			return errkind.WithHint(fmt.Errorf("apply %s: %w", abs, err),
				"nothing was changed in %s; resolve it there with `%s --3way`", repo, command)
		}
		fmt.Fprintf(a.Err, "banger: applied to %s\n", repo)
	case done.Format == "patch":
		fmt.Fprintf(a.Err, "        apply them with: %s\n", command)
	case done.Format == "bundle":
		fmt.Fprintf(a.Err, "        fetch them with: git -C %s fetch %s\n", app.ShellQuote(repo), app.ShellQuote(abs))
	}
	return nil
}
