package workspace

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/workspace/gitcmd"
)

// What a tar has beside files: the objects that were carried in, and the list of the paths that have not changed since.
const (
	packPrefix  = ".git/objects/pack/"
	sameName    = ".git/banger-unchanged"
	maxSameName = 256 << 20 // bytes
)

// PatchFromTar reads the tar that a guest without git sends in place of a patch, and writes the patch to w: the difference
// between the tree baseTree and the same tree with the changes in the tar, less what an ignore rule leaves out. Rules and
// line ends are those of the repository that repoPath is in; nothing is written there. The tree's objects are taken from
// the tar, which brings the pack that was carried in, and from the repository.
func PatchFromTar(ctx context.Context, repoPath, baseTree string, r io.Reader, w io.Writer) (err error) {
	out, err := gitcmd.At(repoPath).Line(ctx, "rev-parse", "--path-format=absolute", "--git-dir", "--git-path", "objects")
	if err != nil {
		return errkind.New(api.KindNotFound, "find the repository of %q: %w", repoPath, err)
	}
	gitDir, objects, _ := strings.Cut(out, "\n")
	tmp, err := os.MkdirTemp("", "banger-export-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	tree := filepath.Join(tmp, "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		return err
	}
	git, err := gitcmd.At(tree).With("GIT_DIR="+gitDir, "GIT_WORK_TREE="+tree).Scratch(tmp, objects)
	if err != nil {
		return err
	}
	// The tar's .gitattributes may name the user's filters; they are not for files from a guest.
	if git, err = gitcmd.WithoutFilters(ctx, git); err != nil {
		return err
	}
	git = git.Set("core.looseCompression=0", "core.bigFileThreshold=16m", "core.sparseCheckout=false", "core.filemode=true")
	same, err := unpack(ctx, git, tree, r)
	if err != nil {
		return fmt.Errorf("read the export: %w", err)
	}
	return diff(ctx, git, baseTree, same, w)
}

// skip makes git take the files at paths for unchanged though they are not there. A path that ends with a slash stands for
// all below it, as in a sparse index.
func skip(ctx context.Context, git gitcmd.Git, paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	all, err := git.List(ctx, "ls-files", "-z")
	if err != nil {
		return err
	}
	same := make(map[string]bool)
	for _, p := range paths {
		same[p] = true
	}
	var list strings.Builder
	for _, p := range all {
		found := same[p]
		for i, c := range []byte(p) {
			found = found || c == '/' && same[p[:i+1]]
		}
		if found {
			list.WriteString(p + "\x00")
		}
	}
	return git.Run(ctx, strings.NewReader(list.String()), nil, "update-index", "-z", "--skip-worktree", "--stdin")
}

// diff writes the difference between the tree base and the working tree of git, from which the same paths are missing.
func diff(ctx context.Context, git gitcmd.Git, base string, same []string, w io.Writer) error {
	if _, err := git.Output(ctx, "read-tree", "--end-of-options", base); err != nil {
		return errkind.WithHint(errkind.New(api.KindPrecondition, "the tree %s that was carried in is not known here: %w", base, err),
			"export a tar instead")
	}
	if err := skip(ctx, git, same); err != nil {
		return err
	}
	if _, err := git.Output(ctx, "add", "-A"); err != nil {
		return err
	}
	now, err := git.Line(ctx, "write-tree")
	if err != nil || now == base {
		return err
	}
	return git.Run(ctx, nil, w, "diff-tree", "-r", "-p", "--binary", "--full-index", "--no-renames", "--no-ext-diff",
		"--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/", base, now)
}

// unpack unpacks a guest's tar below dir, and its packs into the private object directory of git. It returns the paths that
// have not changed, and are not in the tar.
func unpack(ctx context.Context, git gitcmd.Git, dir string, r io.Reader) (same []string, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			_, err := io.Copy(io.Discard, r) // padding
			return same, err
		}
		if err != nil {
			return nil, err
		}
		switch {
		case strings.HasPrefix(h.Name, packPrefix) && h.Typeflag == tar.TypeReg:
			// Git checks every object of a pack that it indexes; an index from the guest would be believed.
			err = git.Run(ctx, tr, nil, "index-pack", "--stdin", "--keep")
		case h.Name == sameName && h.Typeflag == tar.TypeReg && h.Size <= maxSameName:
			var list []byte
			list, err = io.ReadAll(tr)
			same = strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00")
		default:
			err = unpackEntry(root, h, tr)
		}
		if err != nil {
			return nil, fmt.Errorf("unpack %q: %w", h.Name, err)
		}
	}
}

// unpackEntry makes one file or link below root. What root refuses leads out of it; git's own directory is refused here.
func unpackEntry(root *os.Root, h *tar.Header, r io.Reader) error {
	for part := range strings.SplitSeq(h.Name, "/") {
		if strings.EqualFold(part, ".git") {
			return errkind.New(api.KindInvalid, "a file of git's own is no part of a working tree")
		}
	}
	if err := root.MkdirAll(path.Dir(h.Name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, os.FileMode(0o644|h.Mode&0o111))
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, h.Name)
	}
	return errkind.New(api.KindInvalid, "entry type %q", h.Typeflag)
}
