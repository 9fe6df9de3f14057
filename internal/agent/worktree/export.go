package worktree

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/errkind"
)

// exporter returns what writes the export that w asks for, and its format.
func (p *present) exporter(w guestapi.WorkOut) (func(context.Context, io.Writer) error, string, error) {
	if w.Format == "" {
		w.Format = "patch"
	}
	switch {
	case w.Format == "tar" && p.status.Git:
		return p.tarTree, "tar", nil
	case w.Format == "tar":
		return p.tarFiles, "tar", nil
	case w.Format == "patch" && p.status.Git:
		return p.patch, "patch", nil
	case w.Format == "patch":
		return p.tarChanges, "tar", nil
	case w.Format != "bundle":
		return nil, "", errkind.WithHint(errkind.New(api.KindInvalid, "bad export format %q", w.Format), "it is patch, bundle or tar")
	case !p.status.Git:
		return nil, "", errkind.WithHint(errkind.New(api.KindPrecondition, "a bundle needs git in the guest, and a whole repository there"),
			"export a patch or a tar")
	case !isObjectID(w.BaseCommit):
		return nil, "", errkind.New(api.KindInvalid, "bad base commit %q", w.BaseCommit)
	}
	return func(ctx context.Context, out io.Writer) error { return p.bundle(ctx, out, w.BaseCommit) }, "bundle", nil
}

// patch writes the difference between the base tree and the present one. The plumbing command knows nothing of the
// user's taste in diffs, which a patch to apply must not have.
func (p *present) patch(ctx context.Context, w io.Writer) error {
	if p.status.Tree == p.base {
		return nil
	}
	return p.git.stream(ctx, w, "diff-tree", "-r", "-p", "--binary", "--full-index", "--no-renames", "--no-ext-diff",
		"--no-textconv", "--no-color", "--src-prefix=a/", "--dst-prefix=b/", p.base, p.status.Tree)
}

// exportRef is the ref of the commit that holds what is not committed.
const exportRef = "refs/banger/export"

// bundle writes the commits of every branch, tag and stash that baseCommit does not contain, and what is not committed as
// one more on top of HEAD. Refs and commit are made in a private repository.
func (p *present) bundle(ctx context.Context, w io.Writer, baseCommit string) error {
	dir := filepath.Join(p.tmp, "bundle.git")
	if err := os.MkdirAll(filepath.Join(dir, "refs", "heads"), 0o700); err != nil {
		return err
	}
	err := copyIndex(filepath.Join(dir, "shallow"), filepath.Join(p.path, ".git", "shallow"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	refs, err := p.git.output(ctx, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags", "refs/stash")
	if err != nil {
		return err
	}
	if refs != "" {
		refs += "\n"
	}
	head := p.status.Head
	extra, err := p.commitRest(ctx)
	if err != nil {
		return err
	}
	if extra != "" {
		refs += extra + " " + exportRef + "\n"
		if head == "" {
			head = extra
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "packed-refs"), []byte(refs), 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "HEAD"), []byte(head+"\n"), 0o600); err != nil {
		return err
	}
	git := p.git.with("GIT_DIR=" + dir)
	count, err := git.output(ctx, "rev-list", "--all", "HEAD", "--max-count=1", "^"+baseCommit)
	if err != nil || count == "" {
		return err // git makes no bundle without a commit
	}
	return git.stream(ctx, w, "bundle", "create", "-q", "-", "--all", "^"+baseCommit)
}

// commitRest commits the present tree on top of HEAD, unless HEAD has it already.
func (p *present) commitRest(ctx context.Context) (string, error) {
	args := []string{"commit-tree", p.status.Tree, "-m", "banger: what was not committed in the guest"}
	if p.status.Head != "" {
		tree, err := p.git.output(ctx, "rev-parse", "HEAD^{tree}")
		if err != nil || tree == p.status.Tree {
			return "", err
		}
		args = append(args, "-p", p.status.Head)
	}
	return p.git.with("GIT_AUTHOR_NAME=banger", "GIT_AUTHOR_EMAIL=banger@localhost",
		"GIT_COMMITTER_NAME=banger", "GIT_COMMITTER_EMAIL=banger@localhost").output(ctx, args...)
}

// tarTree writes the files of the present tree as they are on disk.
func (p *present) tarTree(ctx context.Context, w io.Writer) error {
	paths, err := p.git.list(ctx, "ls-files", "-z")
	if err != nil {
		return err
	}
	t := tarWriter{tar.NewWriter(w)}
	for _, path := range paths {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(p.path, path), &st); errors.Is(err, fs.ErrNotExist) {
			continue // gone since, or outside a sparse checkout
		} else if err != nil {
			return fmt.Errorf("export %q: %w", path, err)
		}
		if err := t.file(p.path, path, &st); err != nil {
			return err
		}
	}
	return t.Close()
}

// tarFiles writes every file of the working tree, ignored ones too.
func (p *present) tarFiles(_ context.Context, w io.Writer) error {
	t := tarWriter{tar.NewWriter(w)}
	err := eachFile(p.path, func(path string, st *unix.Stat_t) error { return t.file(p.path, path, st) })
	return errors.Join(err, t.Close())
}

// sameName is the name of a list of paths, each ended by a NUL: see tarChanges.
const sameName = ".git/banger-unchanged"

// tarChanges writes what the host needs to make a patch: the objects that were carried in, the files that may have
// changed, ignored ones too, and a list of the paths that are as they were, among them those outside a sparse checkout.
func (p *present) tarChanges(_ context.Context, w io.Writer) error {
	t := tarWriter{tar.NewWriter(w)}
	packs, err := os.ReadDir(filepath.Join(p.path, packDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
		return err
	}
	for _, d := range packs {
		if filepath.Ext(d.Name()) != ".pack" {
			continue
		}
		name := filepath.Join(packDir, d.Name())
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(p.path, name), &st); err != nil {
			return err
		}
		if err := t.file(p.path, name, &st); err != nil {
			return err
		}
	}
	was := make(map[string]noted)
	var same strings.Builder
	err = p.eachNoted(func(path string, n noted, ok bool) {
		if ok {
			was[path] = n
		} else {
			same.WriteString(path + "\x00")
		}
	})
	if err != nil {
		return err
	}
	err = eachFile(p.path, func(path string, st *unix.Stat_t) error {
		if n, ok := was[path]; ok && !n.changed(st) {
			same.WriteString(path + "\x00")
			return nil
		}
		return t.file(p.path, path, st)
	})
	if err != nil {
		return err
	}
	return errors.Join(t.text(sameName, same.String()), t.Close())
}

// packDir is where a repository has its packs.
const packDir = ".git/objects/pack"

// tarWriter writes a tar of files.
type tarWriter struct{ *tar.Writer }

func (t tarWriter) text(name, text string) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(text)), Format: tar.FormatGNU}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.WriteString(t, text)
	return err
}

// file adds the file at path below root. A file that shrinks while it is read is an error.
func (t tarWriter) file(root, path string, st *unix.Stat_t) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("export %q: %w", path, err)
		}
	}()
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: path, Mode: int64(st.Mode & 0o777), Size: st.Size,
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatGNU,
	}
	full := filepath.Join(root, path)
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		target, err := os.Readlink(full)
		if err != nil {
			return err
		}
		h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
		return t.WriteHeader(h)
	}
	f, err := os.OpenFile(full, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(t.Writer, io.LimitReader(f, h.Size))
	if err == nil && n < h.Size {
		err = errkind.New(api.KindBusy, "the file became shorter while it was read")
	}
	return err
}
