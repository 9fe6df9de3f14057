package vmcmd

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/cli/hosttar"
	"github.com/banger-vm/banger/internal/errkind"
)

type cpOptions struct {
	app      *app.App
	src, dst string
	user     string
	archive  bool
}

// NewCp returns `banger vm cp`.
func NewCp(a *app.App) *cobra.Command {
	o := &cpOptions{app: a}
	cmd := &cobra.Command{
		Use: "cp [flags] SRC DST", Short: "Copy files into or out of a VM", Args: app.Args(2, 2, "a source and a destination"),
		Long: `Copy a file or directory into or out of a running VM, written as VM:PATH; a relative path there is below /root. As with cp -r:
a destination that is a directory gets the source as an entry, any other is the new name, and its parent must exist. SRC/. means
what is in the directory. Symbolic links are copied as links, and modes and times are kept. "-" is a tar on standard input or output.
A local path with a colon is written with a slash before it: ./a:b.`,
		Example: `  banger vm cp notes.txt web:
  banger vm cp web:/var/log ./web-logs
  banger vm cp site/. web:/srv/www
  banger vm cp web:/etc - | tar t`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.src, o.dst = args[0], args[1]
			return runCp(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVarP(&o.user, "user", "u", "", "user[:group] who is to own what is copied into the VM (default: root)")
	cmd.Flags().BoolVarP(&o.archive, "archive", "a", false, "keep the numeric owners of what is copied into the VM")
	cmd.MarkFlagsMutuallyExclusive("user", "archive")
	return cmd
}

// guestPath splits VM:PATH. A slash before the colon makes it a local path.
func guestPath(arg string) (vm, p string, ok bool) {
	vm, p, ok = strings.Cut(arg, ":")
	if !ok || vm == "" || strings.Contains(vm, "/") {
		return "", "", false
	}
	if !strings.HasPrefix(p, "/") {
		p = "/root/" + p
	}
	return vm, p, true
}

func runCp(ctx context.Context, o *cpOptions) error {
	from, fromPath, out := guestPath(o.src)
	to, toPath, in := guestPath(o.dst)
	switch {
	case in && out:
		return errkind.WithHint(errkind.New(api.KindInvalid, "both ends are in VMs"),
			"copy through a pipe: banger vm cp %s - | banger vm cp - %s", app.ShellQuote(o.src), app.ShellQuote(o.dst))
	case !in && !out:
		return errkind.WithHint(app.Usage("banger vm cp", "neither end is in a VM"), "write one of them as VM:PATH")
	case out && (o.user != "" || o.archive):
		return errkind.New(api.KindInvalid, "--user and --archive are for copies into a VM")
	}
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	if in {
		return copyIn(ctx, o, c, to, toPath)
	}
	return copyOut(ctx, o, c, from, fromPath)
}

// copyIn carries the local o.src to the guest path dst.
func copyIn(ctx context.Context, o *cpOptions, c *client.Client, vm, dst string) error {
	p := api.VMCopyIn{Ref: api.Ref{Ref: vm}, TarIn: guestapi.TarIn{User: o.user, NumericOwner: o.archive}}
	there, err := c.VMStat(ctx, vm, path.Clean(dst))
	if err != nil {
		return err
	}
	if o.src == "-" {
		if !there.Dir {
			return notDirectory(o.dst, there.Exists)
		}
		p.Path = path.Clean(dst)
		return c.VMCopyIn(ctx, p, func(w io.Writer) error { _, err := io.Copy(w, o.app.In); return err })
	}
	src, err := os.Lstat(o.src)
	if err != nil {
		return sourceError(err)
	}
	top, err := sourceName(o.src)
	if err != nil {
		return err
	}
	switch {
	case src.IsDir() && there.Exists && !there.Dir:
		return errkind.New(api.KindInvalid, "copy a directory over the file %s", o.dst)
	case there.Dir:
		p.Path = path.Clean(dst)
	case src.IsDir() && top == "": // what is in it becomes what is in the new directory
		p.Path = path.Clean(dst)
		err = parentThere(ctx, c, vm, p.Path, o.dst)
	case strings.HasSuffix(dst, "/") && !src.IsDir():
		return notDirectory(o.dst, there.Exists)
	default:
		p.Path, p.Rename = path.Dir(path.Clean(dst)), path.Base(dst)
		err = parentThere(ctx, c, vm, path.Clean(dst), o.dst)
	}
	if err != nil {
		return err
	}
	return c.VMCopyIn(ctx, p, func(w io.Writer) error { return hosttar.Pack(w, o.src, top) })
}

// sourceName is the name that a local source has in the copy; empty for "what is in the directory" (SRC/.).
func sourceName(src string) (string, error) {
	if src == "." || strings.HasSuffix(src, "/.") {
		return "", nil
	}
	abs, err := filepath.Abs(src)
	return filepath.Base(abs), err
}

func sourceError(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errkind.Wrap(api.KindNotFound, err)
	}
	return err
}

func notDirectory(arg string, exists bool) error {
	if exists {
		return errkind.New(api.KindInvalid, "%s is not a directory", arg)
	}
	return errkind.WithHint(errkind.New(api.KindNotFound, "there is no directory %s", arg), "make it first: banger never makes missing parents")
}

func parentThere(ctx context.Context, c *client.Client, vm, p, arg string) error {
	st, err := c.VMStat(ctx, vm, path.Dir(p))
	if err == nil && !st.Dir {
		return notDirectory(strings.TrimSuffix(arg, path.Base(p))+"(the parent of "+path.Base(p)+")", st.Exists)
	}
	return err
}

// copyOut carries the guest path src to the local o.dst.
func copyOut(ctx context.Context, o *cpOptions, c *client.Client, vm, src string) error {
	clean := path.Clean(src)
	st, err := c.VMStat(ctx, vm, clean)
	switch {
	case err != nil:
		return err
	case !st.Exists:
		return errkind.New(api.KindNotFound, "there is nothing at %s", o.src)
	case !st.Dir && (strings.HasSuffix(src, "/") || strings.HasSuffix(src, "/.")):
		return errkind.New(api.KindInvalid, "%s is not a directory", o.src)
	}
	dir, top := "", ""
	if o.dst != "-" {
		contents := strings.HasSuffix(src, "/.") || clean == "/"
		if dir, top, err = destination(o.dst, path.Base(clean), st.Dir, contents); err != nil {
			return err
		}
	}
	r, err := c.VMCopyOut(ctx, api.VMCopyOut{Ref: api.Ref{Ref: vm}, TarOut: guestapi.TarOut{Path: clean}})
	if err != nil {
		return err
	}
	defer r.Close()
	if o.dst == "-" {
		_, err = io.Copy(o.app.Out, r)
		return err
	}
	return hosttar.Unpack(r, dir, top)
}

// destination decides where a copy of an entry called name goes: below dir, under the name top, or with top empty directly into
// dir, which is then made if it is missing.
func destination(dst, name string, srcDir, contents bool) (dir, top string, err error) {
	st, err := os.Stat(dst)
	switch {
	case err == nil && st.IsDir() && contents:
		return dst, "", nil
	case err == nil && st.IsDir():
		return dst, name, nil
	case err == nil && srcDir:
		return "", "", errkind.New(api.KindInvalid, "copy a directory over the file %s", dst)
	case err == nil:
		real, err := filepath.EvalSymlinks(dst) // the user's own link is followed, as cp does
		return filepath.Dir(real), filepath.Base(real), err
	case !errors.Is(err, fs.ErrNotExist):
		return "", "", err
	case strings.HasSuffix(dst, "/") && !srcDir:
		return "", "", notDirectory(dst, false)
	}
	clean := filepath.Clean(dst)
	parent := filepath.Dir(clean)
	if st, err := os.Stat(parent); err != nil || !st.IsDir() {
		return "", "", notDirectory(parent, err == nil)
	}
	return parent, filepath.Base(clean), nil
}
