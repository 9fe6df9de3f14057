package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/workspace/gitcmd"
)

// Git's file modes, as in trees and indexes.
const (
	modeFile    = 0o100644
	modeExec    = 0o100755
	modeSymlink = 0o120000
	modeModule  = 0o160000
)

// fix takes the files' stat data before git looks at them. Whatever changes after that is noticed when a file is sent.
func (s *Source) fix(ctx context.Context) error {
	if err := s.openIndex(ctx); err != nil {
		return err
	}
	tracked, err := s.tracked(ctx)
	if err != nil {
		return err
	}
	changed, err := s.changed(ctx)
	if err != nil {
		return err
	}
	for _, path := range s.flagged {
		changed[path] = "M" // or gone: git has not looked
	}
	s.files = slices.DeleteFunc(tracked, func(f file) bool { return changed[f.Path] == "D" })
	for i := range s.files {
		s.files[i].clean = changed[s.files[i].Path] == ""
	}
	untracked, err := s.untracked(ctx)
	if err != nil {
		return err
	}
	dirty := make([]string, 0, len(changed)+len(untracked))
	for path, status := range changed {
		dirty = append(dirty, path)
		s.intent = s.intent || status == "A"
	}
	if s.repo.opts.IncludeUntracked {
		for _, path := range untracked {
			f, err := s.stat(path, modeFile)
			if err != nil {
				return err
			}
			s.files = append(s.files, f)
		}
		dirty = append(dirty, untracked...)
	}
	return s.finish(ctx, dirty, len(untracked))
}

// finish computes the trees and the plan. dirty are the paths that the base tree has other than the index.
func (s *Source) finish(ctx context.Context, dirty []string, untracked int) error {
	var err error
	if s.indexTree, err = s.git.Line(ctx, "write-tree"); err != nil {
		return fmt.Errorf("tree of the index: %w", err)
	}
	baseTree := s.indexTree
	if len(dirty) > 0 {
		if baseTree, err = s.overlay(ctx, dirty); err != nil {
			return err
		}
	}
	staged, err := s.git.List(ctx, "diff-tree", "-r", "-z", "--name-only", "--no-renames", s.repo.Commit, baseTree)
	if err != nil {
		return err
	}
	slices.SortFunc(s.files, func(a, b file) int { return strings.Compare(a.Path, b.Path) }) // as an index is
	p := &s.plan
	p.Commit, p.Branch, p.BaseTree = s.repo.Commit, s.repo.Branch, baseTree
	p.Changed, p.Untracked = len(staged), untracked
	if s.repo.opts.IncludeUntracked {
		p.Changed -= untracked
	} else if untracked > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%d untracked files stay here; --include-untracked carries them", untracked))
	}
	if s.repo.LFS {
		p.Notes = append(p.Notes, "git-lfs: files go as they are on disk, and the guest treats them as ordinary ones")
	}
	if s.repo.partial {
		p.Notes = append(p.Notes, "partial clone: only the last commit goes, older ones have objects that are not here")
	}
	for _, f := range s.files {
		p.Files = append(p.Files, f.File)
		p.Bytes += f.Size
	}
	return nil
}

// openIndex makes the private index: of the working tree a copy of the user's, of a commit a new one, and a checkout.
func (s *Source) openIndex(ctx context.Context) error {
	if !s.repo.from {
		err := copyFile(s.index, s.repo.paths["index"])
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a clone with --no-checkout: git treats no index as an empty one
		}
		return err
	}
	s.root = filepath.Join(s.tmp, "tree")
	if err := os.Mkdir(s.root, 0o700); err != nil {
		return err
	}
	if _, err := s.git.Set("index.version=2", "core.sparseCheckout=false").Output(ctx, "read-tree", s.repo.Commit); err != nil {
		return err
	}
	_, err := s.git.Set(gitcmd.FiltersOff(s.repo.config.filters())...).Output(ctx, "checkout-index", "-a", "-q", "--prefix="+s.root+"/")
	if err != nil {
		return fmt.Errorf("check out %s: %w", s.repo.Commit, err)
	}
	return nil
}

// copyFile copies an index with its modification time, by which git tells entries that were written just before it from
// files that were changed just after (racy-git).
func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close(), os.Chtimes(to, fi.ModTime(), fi.ModTime()))
}

// tracked returns the files of the index that exist, and refuses what cannot be carried.
func (s *Source) tracked(ctx context.Context) ([]file, error) {
	entries, err := s.git.List(ctx, "ls-files", "-z", "--stage", "-v")
	if err != nil {
		return nil, err
	}
	files := make([]file, 0, len(entries))
	var modules, unmerged []string
	for _, entry := range entries {
		info, path, _ := strings.Cut(entry, "\t")
		var tag, id string
		var mode uint32
		var stage int
		if _, err := fmt.Sscanf(info, "%s %o %s %d", &tag, &mode, &id, &stage); err != nil {
			return nil, errkind.New(api.KindInternal, "index entry %q: %w", entry, err)
		}
		switch {
		case stage != 0:
			unmerged = append(unmerged, path)
		case mode == modeModule:
			modules = append(modules, path)
		default:
			f, err := s.stat(path, mode)
			if err == nil {
				files = append(files, f)
			} else if !isMissing(err) {
				return nil, err
			}
			// Lower case is --assume-unchanged, S is --skip-worktree (git-ls-files(1)). What is skipped and not there is outside
			// a sparse checkout, and needs nothing.
			if tag != strings.ToUpper(tag) || tag == "S" && err == nil {
				s.flagged = append(s.flagged, path)
			}
		}
	}
	if len(unmerged) > 0 {
		return nil, errkind.WithHint(errkind.New(api.KindPrecondition, "unmerged files in %s: %s", s.repo.Root, some(unmerged)),
			"resolve the merge or abort it, or carry a commit instead: --from HEAD")
	}
	if len(modules) > 0 {
		return nil, errkind.WithHint(errkind.New(api.KindPrecondition, "%q has submodules, which cannot be carried: %s", s.repo.Root, some(modules)),
			"carry one of them by its own path, or make a machine with `banger vm run --no-workspace` and copy the files with `banger cp`; "+
				"what changes in such a copy is not exported")
	}
	return files, nil
}

// some lists paths in an error: each quoted and not too many.
func some(paths []string) string {
	const most = 5
	var b strings.Builder
	for i, p := range paths {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(paths)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", p)
	}
	return b.String()
}

func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EISDIR)
}

// stat describes the file at path. mode is the index's; it decides where the file system has no such bits.
func (s *Source) stat(path string, mode uint32) (file, error) {
	full := filepath.Join(s.root, path)
	fi, err := os.Lstat(full)
	if err != nil {
		return file{}, err
	}
	sys, ok := fi.Sys().(*syscall.Stat_t)
	f := file{File: File{Path: path, Size: fi.Size()}, mtime: fi.ModTime()}
	switch {
	case fi.IsDir(): // in place of a file: what is in it is untracked
		return file{}, &fs.PathError{Op: "open", Path: full, Err: syscall.EISDIR}
	case fi.Mode()&fs.ModeSymlink != 0:
		f.mode = modeSymlink
	case !fi.Mode().IsRegular() || !ok:
		return file{}, errkind.WithHint(errkind.New(api.KindPrecondition, "%q is neither a file nor a symbolic link", full),
			"move it away, or carry a commit instead: --from HEAD")
	case s.repo.config.not("core.filemode"):
		if f.mode = mode; mode != modeExec {
			f.mode = modeFile
		}
	case fi.Mode()&0o100 != 0:
		f.mode = modeExec
	default:
		f.mode = modeFile
	}
	f.ino = sys.Ino
	return f, nil
}

// changed returns git's status letter of each tracked file that is not as in the index.
func (s *Source) changed(ctx context.Context) (map[string]string, error) {
	changed := make(map[string]string)
	if s.repo.from { // what was just checked out
		return changed, nil
	}
	_, err := s.git.Output(ctx, "update-index", "-q", "--index-version", "2", "--no-split-index", "--refresh")
	if err != nil && !gitcmd.Exited(err, 1) { // 1: some files have changed
		return nil, fmt.Errorf("refresh a copy of the index: %w", err)
	}
	if _, err := os.Stat(s.index); errors.Is(err, fs.ErrNotExist) {
		s.index = ""
	}
	out, err := s.git.List(ctx, "diff-files", "-z", "--name-status", "--no-renames")
	if err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(out); i += 2 {
		changed[out[i+1]] = out[i]
	}
	return changed, nil
}

// untracked returns the untracked files that no rule ignores. A repository inside the repository stays behind.
func (s *Source) untracked(ctx context.Context) ([]string, error) {
	if s.repo.from {
		return nil, nil
	}
	paths, err := s.git.List(ctx, "ls-files", "-z", "--others", "--exclude-standard")
	if err != nil {
		return nil, err
	}
	var nested []string
	paths = slices.DeleteFunc(paths, func(p string) bool {
		if strings.HasSuffix(p, "/") {
			nested = append(nested, p)
			return true
		}
		return false
	})
	if len(nested) > 0 {
		s.plan.Notes = append(s.plan.Notes, "untracked repositories stay here: "+some(nested))
	}
	return paths, nil
}

// overlay returns the tree of the index with the files at paths as they are on disk, and keeps its index.
func (s *Source) overlay(ctx context.Context, paths []string) (string, error) {
	s.baseIndex = filepath.Join(s.tmp, "base-index")
	if s.index != "" {
		if err := copyFile(s.baseIndex, s.index); err != nil {
			return "", err
		}
	}
	slices.Sort(paths)
	git := s.git.WithIndex(s.baseIndex).Set(gitcmd.FiltersOff(s.repo.config.filters())...).Set("core.looseCompression=0")
	update := func(paths []string, args ...string) error {
		if len(paths) == 0 {
			return nil
		}
		args = append([]string{"update-index", "-z"}, args...)
		return git.Run(ctx, strings.NewReader(nulList(paths)), nil, append(args, "--stdin")...)
	}
	err := update(s.flagged, "--no-assume-unchanged")
	if err == nil {
		err = update(s.flagged, "--no-skip-worktree")
	}
	if err == nil {
		err = update(paths, "--add", "--remove", "--replace")
	}
	if err != nil {
		return "", fmt.Errorf("record the changed files: %w", err)
	}
	return git.Line(ctx, "write-tree")
}

// nulList ends each path with a NUL.
func nulList(paths []string) string {
	if len(paths) == 0 {
		return ""
	}
	return strings.Join(paths, "\x00") + "\x00"
}
