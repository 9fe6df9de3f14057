// Package runcmd is `banger vm run`: a VM, a workspace in it, and a command or a shell, in one go.
//
// # What is left, whatever happens
//
// Until the command begins, the VM holds nothing of the user's that the host does not have, so every failure and every interrupt
// deletes it. From then on it may hold work: it is deleted only with --rm, and only after what changed has been stored on the host
// ([workcmd.Export]); when that fails the VM is kept and the error says how to get at it. With --rm the VM is ephemeral and this
// program holds a lease on it: if it is killed, the daemon exports and deletes in its place.
package runcmd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/cli/vmcmd"
	"github.com/banger-vm/banger/internal/cli/workcmd"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/workspace/source"
)

type options struct {
	app         *app.App
	spec        vmcmd.Spec
	source      workcmd.SourceFlags
	path        string // empty: the repository we stand in, if any
	argv        []string
	noWorkspace bool
	rm, detach  bool
	dryRun      bool
	patch       string
	apply       bool
	tty         bool
	user        string
	quiet       bool
}

// New returns `banger vm run`.
func New(a *app.App) *cobra.Command {
	o := &options{app: a}
	cmd := &cobra.Command{
		Use: "run [flags] [PATH] [-- COMMAND [ARG...]]", Short: "Create a VM with your repository and open a shell in it",
		Long: `Create a VM, carry the git repository that PATH is in into it (default: the one you stand in, if any), and open a shell there, or run
COMMAND and end with its exit status. The command's words are passed on as they are, with no shell in between.

Tracked files go as they are in your working tree; untracked ones with --include-untracked; ignored ones never. With --rm the VM
is deleted at the end, after what changed has been saved as a patch, also when this program is killed; without it the VM stays and
keeps running. Nothing in your repository is touched unless you say --apply. Progress is on standard error. Ctrl-C before the
command begins leaves nothing behind.`,
		Example: `  banger vm run
  banger vm run --rm . -- make test
  banger vm run --rm --apply -- sh -c 'gofmt -w .'
  banger vm run --no-workspace --name scratch --memory 2G
  banger vm run --dry-run --include-untracked ~/src/site`,
		Args: func(cmd *cobra.Command, args []string) error { return o.parse(cmd, args) },
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o) },
	}
	o.spec.Flags(a, cmd)
	o.source.Flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.rm, "rm", false, "at the end save what changed as a patch and delete the VM")
	f.BoolVarP(&o.detach, "detach", "d", false, "leave the VM running and print its name; COMMAND runs on in it as the session main")
	f.BoolVar(&o.noWorkspace, "no-workspace", false, "carry no repository in")
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would be created and carried, and do nothing")
	f.StringVar(&o.patch, "patch", "", "at the end save what changed in this file (with --rm the default is a file in banger's directory of patches)")
	f.BoolVar(&o.apply, "apply", false, "at the end apply what changed to your working tree")
	f.BoolVarP(&o.tty, "tty", "t", false, "give COMMAND a terminal; a shell has one without asking")
	f.StringVarP(&o.user, "user", "u", "", "user[:group] to run as (default: root)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	cmd.MarkFlagsMutuallyExclusive("rm", "detach")
	return cmd
}

// parse splits [PATH] [-- COMMAND...].
func (o *options) parse(cmd *cobra.Command, args []string) error {
	before := args
	if n := cmd.ArgsLenAtDash(); n >= 0 {
		before, o.argv = args[:n], args[n:]
		if len(o.argv) == 0 {
			return app.Usage("banger vm run", "no command after --")
		}
	}
	switch len(before) {
	case 0:
	case 1:
		o.path = before[0]
	default:
		return errkind.WithHint(errkind.New(api.KindInvalid, "one PATH at most: %q is too many", before[1]),
			"a command comes after --, as in `banger vm run %s -- %s`", before[0], before[1])
	}
	return nil
}

// check finds what makes no sense before anything is created.
func (o *options) check() error {
	invalid := func(hint, format string, args ...any) error {
		return errkind.WithHint(errkind.New(api.KindInvalid, format, args...), "%s", hint)
	}
	s := o.source
	switch {
	case o.detach && o.tty:
		return invalid("start it with `banger vm session start --stdin pty`, or leave -t out", "--detach has no terminal to give")
	case o.detach && (o.patch != "" || o.apply):
		return invalid("export later with `banger vm workspace export NAME`", "--detach has no end at which to save changes")
	case o.noWorkspace && o.path != "":
		return invalid("leave one of them out", "--no-workspace contradicts the path %q", o.path)
	case o.noWorkspace && (s.Branch != "" || s.From != "" || s.IncludeUntracked || o.patch != "" || o.apply):
		return invalid("they are about a workspace", "--no-workspace contradicts --branch, --from, --include-untracked, --patch and --apply")
	case o.tty && !(o.app.InTTY && o.app.OutTTY):
		return invalid("leave -t out", "-t needs a terminal on standard input and output")
	}
	if o.patch == "" {
		return nil
	}
	dir := filepath.Dir(o.patch)
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return invalid("make it first", "--patch: there is no directory %s", dir)
	}
	if st, err := os.Stat(o.patch); err == nil && st.IsDir() {
		return invalid("give a file in it", "--patch: %s is a directory", o.patch)
	}
	return nil
}

// open finds the repository and fixes what is to be carried. It returns nil when there is to be no workspace.
func (o *options) open(ctx context.Context) (*source.Source, error) {
	if o.noWorkspace {
		return nil, nil
	}
	path := o.path
	if path == "" {
		path = "."
	}
	repo, err := source.Inspect(ctx, path, o.source.Options)
	s := o.source
	plain := o.path == "" && s.Branch == "" && s.From == "" && !s.IncludeUntracked && o.patch == "" && !o.apply
	switch {
	case plain && errkind.Is(err, api.KindNotFound):
		return nil, nil // not in a repository, and nothing says that there should be one
	case err != nil && errkind.Hint(err) == "":
		return nil, errkind.WithHint(err, "PATH is a directory in a git repository; for a machine without one say --no-workspace")
	case err != nil:
		return nil, err
	}
	return source.Open(ctx, repo)
}

func run(ctx context.Context, o *options) error {
	p, err := o.spec.Create(o.app)
	if err == nil {
		err = o.check()
	}
	if err != nil {
		return err
	}
	src, err := o.open(ctx)
	if err != nil {
		return err
	}
	if src != nil {
		defer src.Close()
	}
	if o.dryRun {
		return o.plan(p, src)
	}
	r := &runner{options: o, src: src}
	if err := r.begin(ctx, p); err != nil {
		return err
	}
	defer r.release()
	if o.detach {
		return r.leave(ctx)
	}
	st, err := r.exec(ctx)
	return r.end(ctx, st, err)
}

// plan prints what would be created and carried.
func (o *options) plan(p api.VMCreate, src *source.Source) error {
	or := func(s, other string) string {
		if s == "" {
			return other
		}
		return s
	}
	size := func(n int64, other string) string { return or(app.Size(n), other) }
	w := o.app.Out
	fmt.Fprintf(w, "vm         %s\nimage      %s\n", or(p.Name, "(two random words)"), or(p.Image, "(the default image)"))
	vcpu := "(the configuration's)"
	if p.VCPU > 0 {
		vcpu = fmt.Sprint(p.VCPU)
	}
	fmt.Fprintf(w, "vcpu       %s\nmemory     %s\n", vcpu, size(int64(p.MemMiB)<<20, "(the configuration's)"))
	if src == nil {
		fmt.Fprintln(w, "workspace  none")
		return nil
	}
	ws := src.Workspace("")
	fmt.Fprintf(w, "workspace  %s -> %s\n", ws.Source, workcmd.GuestPath(ws.Source))
	workcmd.PrintPlan(w, src.Plan())
	return nil
}
