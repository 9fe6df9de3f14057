// Package workspace brings the changes of a workspace back into the user's repository. Package source, below it, carries
// a repository into a guest; package gitcmd runs git for both.
//
// All of it runs in the client, as the user: see docs/adr/0002. What comes from a guest is not trusted. A patch is applied
// by git, which refuses a path that leads out of the repository, through a symbolic link, or into .git. A tar is unpacked
// into a private directory, and nothing in it is read as configuration.
//
// Where the guest has no git, its export of a patch is a tar of the changed files, and [PatchFromTar] makes the patch here.
package workspace

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/workspace/gitcmd"
)

// Apply applies the patch in patchFile to the working tree of the repository that repoPath is in, all of it or nothing, and
// returns the paths that it changed. The index stays as it is. An empty patch changes nothing. A patch that does not fit is
// an error of kind precondition that says which files are in the way.
func Apply(ctx context.Context, repoPath, patchFile string) ([]string, error) {
	fi, err := os.Stat(patchFile)
	if err != nil {
		return nil, errkind.Wrap(api.KindNotFound, err)
	}
	if fi.Size() == 0 {
		return nil, nil
	}
	root, err := gitcmd.At(repoPath).Line(ctx, "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, errkind.New(api.KindNotFound, "find the repository of %q: %w", repoPath, err)
	}
	git := gitcmd.At(root).Set("apply.whitespace=nowarn", "apply.ignoreWhitespace=no")
	err = apply(ctx, git, patchFile)
	if gitcmd.Exited(err, 1) {
		// A file that goes through a filter such as git-lfs was known in the guest by its id here while it was unchanged, and
		// by the id of its bytes when it was changed: what was changed here and there again fits only without filters.
		off, offErr := gitcmd.WithoutFilters(ctx, git)
		if offErr == nil && apply(ctx, off, patchFile) == nil {
			err = nil
		}
	}
	if gitcmd.Exited(err, 1) || gitcmd.Exited(err, 128) {
		return nil, errkind.WithHint(
			errkind.New(api.KindPrecondition, "the patch does not fit %s, and nothing was changed: %s", root, refusals(err)),
			"the files have changed since they were carried in; `git apply --3way %q` merges what it can", patchFile)
	}
	if err != nil {
		return nil, fmt.Errorf("apply the patch: %w", err)
	}
	return touched(ctx, git, patchFile)
}

func apply(ctx context.Context, git gitcmd.Git, patchFile string) error {
	_, err := git.Output(ctx, "apply", "--binary", "--whitespace=nowarn", "--", patchFile)
	return err
}

// refusals returns what git says about the files that do not fit, in one line.
func refusals(err error) string {
	var lines []string
	for _, line := range gitcmd.Messages(err) {
		if text, ok := strings.CutPrefix(line, "error: "); ok {
			lines = append(lines, text)
		}
	}
	if len(lines) == 0 {
		return err.Error()
	}
	return strings.Join(lines, "; ")
}

// touched returns the paths in a patch.
func touched(ctx context.Context, git gitcmd.Git, patchFile string) ([]string, error) {
	out, err := git.List(ctx, "apply", "--numstat", "-z", "--", patchFile)
	if err != nil {
		return nil, err
	}
	for i, item := range out {
		// ADDED \t DELETED \t PATH
		if f := strings.SplitN(item, "\t", 3); len(f) == 3 {
			out[i] = f[2]
		}
	}
	return out, nil
}
