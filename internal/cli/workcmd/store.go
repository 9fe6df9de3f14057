package workcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/workspace"
)

// Exported is the outcome of [Export].
type Exported struct {
	Status guestapi.WorkStatus // what was exported
	Format string
	File   string // where it is, empty when nothing has changed
}

// Export writes what changed in the workspace of vm to the file that name returns for the export's format, and tells the
// daemon. It writes nothing when nothing has changed. A guest without git sends its files, and the patch is then made here, with
// the git and the repository that the workspace came from.
func Export(ctx context.Context, c *client.Client, vm api.VM, p api.WorkExport, name func(format string) (string, error)) (Exported, error) {
	p.Ref.Ref = vm.ID
	reply, r, err := c.WorkExport(ctx, p)
	if err != nil {
		return Exported{}, err
	}
	defer r.Close()
	out := Exported{Status: reply.Status, Format: p.Format}
	if !reply.Status.Changed && p.Base != "commit" {
		_, err := io.Copy(io.Discard, r)
		return out, err
	}
	if out.File, err = name(p.Format); err != nil {
		return out, err
	}
	err = store(out.File, func(w io.Writer) error { return convert(ctx, vm, p.Format, reply, r, w) })
	if err != nil {
		return out, fmt.Errorf("store the export: %w", err)
	}
	return out, c.WorkExported(ctx, vm.ID, reply.Status.Tree)
}

// convert copies the export to w in the format that was asked for.
func convert(ctx context.Context, vm api.VM, format string, reply guestapi.WorkOutReply, r io.Reader, w io.Writer) error {
	if format == "patch" && reply.Format == "tar" {
		return workspace.PatchFromTar(ctx, vm.Workspace.Source, vm.Workspace.BaseTree, r, w)
	}
	_, err := io.Copy(w, r)
	return err
}

// store has fill write a file beside path and gives it that name when it is whole and on the disk.
func store(path string, fill func(io.Writer) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, and is meant to
	if err := errors.Join(fill(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return host.Sync(dir)
}
