// Package workcmd is `banger vm workspace`, and the two steps of it that `vm run` takes as well: [Prepare], which carries a
// repository in, and [Export], which stores what changed on the host.
//
// Git runs here, in the client, as the user, and never in the daemon (docs/adr/0002).
//
// An export counts, and no longer stands in the way of deleting the VM, only when it is on the disk: the file is written beside
// its final name, synced, renamed, and then the daemon is told.
package workcmd

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/workspace/source"
)

// New returns `banger vm workspace` with its verbs.
func New(a *app.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "workspace", Aliases: []string{"ws"}, Short: "Carry git repositories into VMs and changes back", Args: cobra.NoArgs,
		Long: `A workspace is a git repository in a guest, with a record of exactly what was carried in. The guest's copy has the branch, recent
history and the real origin; your own repository is never written to. An export is what has changed since: commits, staged,
unstaged and untracked files alike.`,
	}
	cmd.AddCommand(newPrepare(a), newExport(a), newStatus(a))
	return cmd
}

// SourceFlags are the flags that say what of a repository to carry; `vm run` has them too.
type SourceFlags struct{ source.Options }

// Flags declares the flags on cmd.
func (s *SourceFlags) Flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&s.Branch, "branch", "b", "", "branch to check out in the guest, made if it is new (default: the present one)")
	f.StringVar(&s.From, "from", "", "commit, branch or tag to carry instead of the working tree")
	f.BoolVar(&s.IncludeUntracked, "include-untracked", false, "carry untracked files too; ignored ones never go")
	f.IntVar(&s.Depth, "depth", source.DefaultDepth, "how many generations of commits to carry")
	cmd.RegisterFlagCompletionFunc("branch", cobra.NoFileCompletions)
	cmd.RegisterFlagCompletionFunc("from", cobra.NoFileCompletions)
}

// Prepare carries src into the directory guestPath of a running VM, with progress.
func Prepare(ctx context.Context, c *client.Client, ref string, src *source.Source, guestPath string, prog *app.Progress) error {
	prog.Stage("carry workspace in")
	p := api.WorkPrepare{Ref: api.Ref{Ref: ref}, Workspace: src.Workspace(guestPath)}
	total := src.Plan().Bytes
	return c.WorkPrepare(ctx, p, func(w io.Writer) error {
		return src.Stream(ctx, &counter{w: w, total: total, prog: prog})
	})
}

// counter reports bytes as progress. History comes on top of the files' sizes, so the sum may pass the total.
type counter struct {
	w           io.Writer
	done, total int64
	prog        *app.Progress
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.done += int64(n)
	c.prog.Progress(min(c.done, c.total), c.total, "bytes")
	return n, err
}

// GuestPath is where the repository at root goes in a guest unless a place is given: /root/NAME.
func GuestPath(root string) string {
	name := filepath.Base(root)
	if name == "/" || name == "." {
		name = "workspace"
	}
	return "/root/" + name
}

// PrintPlan prints what would be carried.
func PrintPlan(w io.Writer, p source.Plan) {
	short := func(id string) string { return id[:min(12, len(id))] }
	branch := p.Branch
	if branch == "" {
		branch = "(detached)"
	}
	fmt.Fprintf(w, "commit     %s\nbranch     %s\n", short(p.Commit), branch)
	fmt.Fprintf(w, "changes    %d changed, %d untracked\n", p.Changed, p.Untracked)
	fmt.Fprintf(w, "files      %d, %s\n", len(p.Files), orZero(app.Size(p.Bytes)))
	for _, n := range p.Notes {
		fmt.Fprintf(w, "note       %s\n", n)
	}
	for _, f := range p.Files {
		fmt.Fprintf(w, "%10d %s\n", f.Size, printable(f.Path))
	}
}

func orZero(s string) string {
	if s == "" {
		return "0"
	}
	return s
}

// printable quotes a path that would break a line or change a terminal.
func printable(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) {
		return fmt.Sprintf("%q", path)
	}
	return path
}
