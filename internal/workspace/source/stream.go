package source

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// globalAttributes is where the user's own attributes go, below .git.
const globalAttributes = "info/attributes-global"

// cleanMark is the user name of a file whose content the index has.
const cleanMark = "clean"

// bufferSize is that of a write to the stream, a multiple of a frame's payload.
const bufferSize = 256 << 10

// Stream writes the workspace to w as one tar. A file that is no longer as it was when the state was fixed ends it with an
// error of kind busy: what the guest would be told about the file would be wrong.
func (s *Source) Stream(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	packed := make(chan error, 1)
	go func() { packed <- s.Pack(ctx) }()
	joined := false
	defer func() {
		cancel()
		if !joined {
			<-packed
		}
	}()
	out := bufio.NewWriterSize(w, bufferSize)
	t := &tarWriter{tw: tar.NewWriter(out), buf: make([]byte, bufferSize)}
	if err := errors.Join(t.copyIn(".git/index", s.index), t.copyIn(".git/banger-index", s.baseIndex)); err != nil {
		return err
	}
	for _, f := range s.files {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.file(s.root, f); err != nil {
			return fmt.Errorf("carry %q: %w", f.Path, err)
		}
	}
	err := <-packed
	joined = true
	if err != nil {
		return err
	}
	if err := s.skeleton(t); err != nil {
		return err
	}
	return errors.Join(t.tw.Close(), out.Flush())
}

// skeleton writes .git; HEAD, which makes it a repository, comes last.
func (s *Source) skeleton(t *tarWriter) error {
	for _, suffix := range []string{".pack", ".idx"} {
		if err := t.copyIn(".git/objects/pack/"+filepath.Base(s.pack.name)+suffix, s.pack.name+suffix); err != nil {
			return err
		}
	}
	var refs, shallow bytes.Buffer
	for _, r := range s.pack.refs {
		fmt.Fprintf(&refs, "%s %s\n", r.id, r.name)
	}
	head := s.plan.Commit + "\n"
	if s.plan.Branch != "" {
		fmt.Fprintf(&refs, "%s refs/heads/%s\n", s.plan.Commit, s.plan.Branch)
		head = "ref: refs/heads/" + s.plan.Branch + "\n"
	}
	for _, id := range s.pack.shallow {
		fmt.Fprintln(&shallow, id)
	}
	exclude, err := readFirst(s.repo.config.userFile("core.excludesfile", "ignore"), s.repo.paths["info/exclude"])
	if err != nil {
		return err
	}
	texts := []struct{ name, text string }{
		// The pack holds trees that no ref leads to, and a guest's `git gc` must leave them: see git-repack(1), .keep.
		{"objects/pack/" + filepath.Base(s.pack.name) + ".keep", "banger: the base that exports are made against\n"},
		{"info/exclude", exclude},
		{"packed-refs", refs.String()},
		{"shallow", shallow.String()},
		{"config", s.guestConfig()},
		{"banger-flagged", nulList(s.flagged)},
	}
	for _, f := range texts {
		if f.text == "" {
			continue
		}
		if err := t.text(".git/"+f.name, f.text); err != nil {
			return err
		}
	}
	// Git takes a directory for a repository only if it has this one (gitrepository-layout(5)).
	if err := t.header(&tar.Header{Typeflag: tar.TypeDir, Name: ".git/refs/heads/", Mode: 0o755}); err != nil {
		return err
	}
	if err := s.infoFiles(t); err != nil {
		return err
	}
	return t.text(".git/HEAD", head)
}

// infoFiles copies what else decides how files are read.
func (s *Source) infoFiles(t *tarWriter) error {
	if err := t.copyIfThere(".git/info/attributes", s.repo.paths["info/attributes"]); err != nil {
		return err
	}
	if s.hasAttributes() {
		if err := t.copyIn(".git/"+globalAttributes, s.attributesFile()); err != nil {
			return err
		}
	}
	if !s.repo.Sparse {
		return nil
	}
	return t.copyIfThere(".git/info/sparse-checkout", s.repo.paths["info/sparse-checkout"])
}

func (s *Source) attributesFile() string {
	return s.repo.config.userFile("core.attributesfile", "attributes")
}

func (s *Source) hasAttributes() bool {
	fi, err := os.Stat(s.attributesFile())
	return err == nil && fi.Mode().IsRegular()
}

// readFirst joins the files at paths, a missing one counting as empty.
func readFirst(paths ...string) (string, error) {
	var b bytes.Buffer
	for _, p := range paths {
		text, err := os.ReadFile(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		b.Write(text)
		if len(text) > 0 && text[len(text)-1] != '\n' {
			b.WriteByte('\n')
		}
	}
	return b.String(), nil
}

// tarWriter writes the stream's entries.
type tarWriter struct {
	tw  *tar.Writer
	buf []byte
}

// header begins an entry. GNU's format takes names of any bytes.
func (t *tarWriter) header(h *tar.Header) error {
	h.Format = tar.FormatGNU
	return t.tw.WriteHeader(h)
}

func (t *tarWriter) text(name, text string) error {
	if err := t.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
		return err
	}
	_, err := io.WriteString(t.tw, text)
	return err
}

// copyIn sends the file at path, one of ours, under name. An empty path is nothing to send.
func (t *tarWriter) copyIn(name, path string) error {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if err := t.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: fi.Size()}); err != nil {
		return err
	}
	return t.content(f, fi.Size())
}

func (t *tarWriter) copyIfThere(name, path string) error {
	err := t.copyIn(name, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// content copies exactly size bytes. What is longer was being written to.
func (t *tarWriter) content(r io.Reader, size int64) error {
	n, err := io.CopyBuffer(struct{ io.Writer }{t.tw}, io.LimitReader(r, size), t.buf)
	if err == nil && n < size {
		err = errMoved
	}
	return err
}

var errMoved = errkind.WithHint(errkind.New(api.KindBusy, "the file changed while it was read"),
	"run the command again when nothing writes to the repository")

// file sends one file of the working tree.
func (t *tarWriter) file(root string, f file) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: f.Path, Mode: int64(f.mode & 0o777), Size: f.Size, ModTime: f.mtime}
	if f.clean {
		h.Uname = cleanMark
	}
	path := filepath.Join(root, f.Path)
	if f.mode == modeSymlink {
		target, err := os.Readlink(path)
		if err != nil || int64(len(target)) != f.Size {
			return errors.Join(err, errMoved)
		}
		h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, target, 0
		return t.header(h)
	}
	in, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		if isMissing(err) || errors.Is(err, syscall.ELOOP) {
			return errMoved
		}
		return err
	}
	defer in.Close()
	if err := f.unmoved(in); err != nil {
		return err
	}
	if err := t.header(h); err != nil {
		return err
	}
	if err := t.content(in, f.Size); err != nil {
		return err
	}
	return f.unmoved(in) // not while it was read either
}

// unmoved checks that the open file is the one that was fixed.
func (f file) unmoved(in *os.File) error {
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	sys, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || sys.Ino != f.ino || fi.Size() != f.Size || !fi.ModTime().Equal(f.mtime) {
		return errMoved
	}
	return nil
}
