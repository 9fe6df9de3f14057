package worktree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/errkind"
)

// present is what a workspace is now. Where git serves, its trees are in a private object directory until close.
type present struct {
	path   string
	git    git    // with private index and objects; only where status.Git is set
	tmp    string // empty without git
	base   string // tree id
	status guestapi.WorkStatus
}

func (p *present) close() error {
	if p.tmp == "" {
		return nil
	}
	return os.RemoveAll(p.tmp)
}

// isObjectID reports whether s is an object id, and so no option of git's.
func isObjectID(s string) bool { return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == "" }

// look finds out what the workspace is now.
func (s *service) look(ctx context.Context, ref guestapi.WorkRef) (_ *present, err error) {
	if err := checkPath(ref.Path); err != nil {
		return nil, err
	}
	if !isObjectID(ref.BaseTree) {
		return nil, errkind.New(api.KindInvalid, "bad base tree %q", ref.BaseTree)
	}
	if fi, err := os.Stat(ref.Path); err != nil || !fi.IsDir() {
		return nil, errkind.WithHint(errkind.New(api.KindNotFound, "the guest has no workspace at %q", ref.Path),
			"it was moved or removed in the guest; `banger vm cp` copies any path out")
	}
	p := &present{path: ref.Path, git: s.newGit(ref.Path)}
	p.base, err = p.git.output(ctx, "rev-parse", "-q", "--verify", ref.BaseTree+"^{tree}")
	if isMissing(err) || failed(err) {
		// No git, or no repository that knows the base any more: the files are still there.
		return p, p.compareFiles()
	}
	if err != nil {
		return nil, err
	}
	p.status.Git = true
	if p.tmp, err = p.git.scratchDir(); err != nil {
		return nil, err
	}
	if err := p.readTree(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("look at the workspace %q: %w", ref.Path, err), p.close())
	}
	return p, nil
}

// readTree fills in the status with git.
func (p *present) readTree(ctx context.Context) (err error) {
	if err := p.readHead(ctx); err != nil {
		return err
	}
	if p.git, err = p.git.scratch(p.tmp); err != nil {
		return err
	}
	if err := p.unflag(ctx); err != nil {
		return err
	}
	// A repository inside the repository takes one more round for each level.
	const rounds = 16
	for range rounds {
		nested, err := p.addAll(ctx)
		if err != nil {
			return err
		}
		if len(nested) == 0 {
			return p.readRefs(ctx)
		}
		if err := p.openNested(ctx, nested); err != nil {
			return err
		}
	}
	return errkind.New(api.KindPrecondition, "repositories are nested more than %d deep", rounds)
}

// readHead fills in head and branch; a HEAD without a commit has only the latter.
func (p *present) readHead(ctx context.Context) error {
	out, err := p.git.output(ctx, "rev-parse", "HEAD", "--symbolic-full-name", "HEAD")
	if failed(err) {
		out, err = p.git.output(ctx, "symbolic-ref", "-q", "HEAD")
		out = "\n" + out
	}
	if err != nil && !failed(err) {
		return err
	}
	head, branch, _ := strings.Cut(out, "\n")
	p.status.Head, p.status.Branch = head, strings.TrimPrefix(branch, "refs/heads/")
	if branch == "HEAD" {
		p.status.Branch = "" // detached
	}
	return nil
}

// unflag makes git look at the files that it was told, on the host, not to look at; only for the present tree.
func (p *present) unflag(ctx context.Context) error {
	for _, flag := range []string{"--no-assume-unchanged", "--no-skip-worktree"} {
		list, err := os.Open(filepath.Join(p.path, ".git", "banger-flagged"))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		err = p.git.feed(ctx, list, "update-index", "-z", flag, "--stdin")
		if err := errors.Join(err, list.Close()); err != nil && !failed(err) { // some are in the index no more
			return err
		}
	}
	return nil
}

// addAll brings the private index up to the working tree, and the status with it. It returns the repositories inside the
// repository, of which git has taken at most a commit id and no file.
func (p *present) addAll(ctx context.Context) (nested []string, err error) {
	_, addErr := p.git.output(ctx, "add", "-A", "--ignore-errors")
	if addErr != nil {
		if !failed(addErr) {
			return nil, addErr
		}
		// A repository without a commit cannot be added at all. Whatever else is not in the index now is an error.
		left, err := p.git.list(ctx, "ls-files", "-z", "--others", "--exclude-standard")
		if err != nil {
			return nil, err
		}
		file := slices.ContainsFunc(left, func(path string) bool { return !strings.HasSuffix(path, "/") })
		if file || len(left) == 0 {
			return nil, addErr
		}
		return left, nil
	}
	if p.status.Tree, err = p.git.output(ctx, "write-tree"); err != nil {
		return nil, err
	}
	p.status.Changed, p.status.Files, p.status.Omitted = p.status.Tree != p.base, nil, 0
	if !p.status.Changed {
		return nil, nil
	}
	return p.readChanges(ctx)
}

// readChanges fills in the changed files, and returns the repositories among them.
func (p *present) readChanges(ctx context.Context) (nested []string, err error) {
	raw, err := p.git.list(ctx, "diff-tree", "-r", "-z", "--raw", "--no-renames", p.base, p.status.Tree)
	if err != nil {
		return nil, err
	}
	files := make([]guestapi.WorkFile, 0, len(raw)/2)
	for i := 0; i+1 < len(raw); i += 2 {
		// :OLDMODE NEWMODE OLDID NEWID STATUS (git-diff-tree(1), "Raw output format")
		f := strings.Fields(raw[i])
		if len(f) != 5 {
			return nil, errkind.New(api.KindInternal, "git diff-tree printed %q", raw[i])
		}
		if f[1] == "160000" {
			nested = append(nested, raw[i+1])
		}
		files = append(files, guestapi.WorkFile{Path: raw[i+1], Status: f[4]})
	}
	p.setFiles(files)
	return nested, nil
}

// maxPaths bounds the bytes of paths in a status, which must fit into one line.
const maxPaths = 1 << 20

// setFiles puts files into the status, with their paths as they are sent.
func (p *present) setFiles(files []guestapi.WorkFile) {
	sum := 0
	for i := range files {
		files[i].Path = quotePath(files[i].Path)
		if sum += len(files[i].Path) + 32; sum > maxPaths {
			p.status.Files, p.status.Omitted = files[:i], len(files)-i
			return
		}
	}
	p.status.Files = files
}

// openNested makes git take the files of the repositories at paths one by one. Git does so for a directory of which the
// index has a file already, so it is given one; the file is not there, and the next round removes it.
func (p *present) openNested(ctx context.Context, paths []string) error {
	const emptyBlob = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
	for _, path := range paths {
		path = strings.TrimSuffix(path, "/")
		if _, err := p.git.output(ctx, "update-index", "--force-remove", "--", path); err != nil {
			return err
		}
		entry := "100644," + emptyBlob + "," + path + "/.banger-nested"
		if _, err := p.git.output(ctx, "update-index", "--add", "--cacheinfo", entry); err != nil {
			return err
		}
		p.status.Notes = append(p.status.Notes,
			fmt.Sprintf("%s is a repository of its own: its files are exported, its history is not", quotePath(path)))
	}
	return nil
}

// readRefs fills in the refs whose commits are in no export but a bundle.
func (p *present) readRefs(ctx context.Context) error {
	if p.status.Head == "" {
		return p.refsBeside(ctx, "")
	}
	return p.refsBeside(ctx, p.status.Head)
}

// refsBeside finds the refs that neither head, when there is one, nor the base commit contains.
func (p *present) refsBeside(ctx context.Context, head string) error {
	beside := func(commit string) ([]string, error) {
		out, err := p.git.output(ctx, "for-each-ref", "--no-merged="+commit, "--format=%(refname)", "refs/heads", "refs/tags", "refs/stash")
		return strings.Fields(out), err
	}
	var refs []string
	var err error
	if head != "" {
		if refs, err = beside(head); err != nil || len(refs) == 0 {
			return err
		}
	}
	base, err := p.git.output(ctx, "config", "--get", "banger.base")
	if err == nil {
		var more []string
		more, err = beside(base)
		if head == "" {
			refs = more
		} else if err == nil {
			refs = slices.DeleteFunc(refs, func(r string) bool { return !slices.Contains(more, r) })
		}
	}
	if err != nil && !failed(err) {
		return err
	}
	// Without a base that git knows any ref may hold work.
	p.status.Refs = refs
	p.status.Changed = p.status.Changed || len(refs) > 0
	return nil
}
