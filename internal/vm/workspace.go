package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/vm/capability"
)

// A workspace's git work on the host is the client's; the daemon keeps the record, so that it can tell unexported work,
// and passes the streams on.

// PrepareWorkspace records ws and opens the stream into the guest. The record comes first: once a byte of the user's may
// be in the guest, deleting the VM asks.
func (s *Service) PrepareWorkspace(ctx context.Context, ref string, ws banger.Workspace) (*guest.Stream, error) {
	vm, conn, err := s.Guest(ctx, ref)
	if err != nil {
		return nil, err
	}
	if !path.IsAbs(ws.GuestPath) || path.Clean(ws.GuestPath) != ws.GuestPath || ws.GuestPath == "/" {
		return nil, errkind.WithHint(errkind.New(api.KindInvalid, "bad guest path %q", ws.GuestPath),
			"give an absolute path without . and .., such as /root/project")
	}
	ws.Prepared = time.Now().UTC()
	_, err = s.cfg.Store.UpdateVM(ctx, vm.ID, func(v *banger.VM) error {
		if v.Workspace != nil && v.Workspace.GuestPath != ws.GuestPath {
			return errkind.WithHint(errkind.New(api.KindExists, "vm %q has a workspace at %s", v.Name, v.Workspace.GuestPath),
				"use that one, or make another VM")
		}
		v.Workspace = &ws
		return nil
	})
	if err != nil {
		return nil, err
	}
	stream, err := conn.Open(ctx, guestapi.MethodWorkIn, guestapi.WorkIn{Path: ws.GuestPath}, nil)
	if err != nil {
		return nil, errors.Join(err, s.forgetWorkspace(ctx, vm.ID))
	}
	return stream, nil
}

// forgetWorkspace takes a record back whose stream never began.
func (s *Service) forgetWorkspace(ctx context.Context, id banger.VMID) error {
	_, err := s.cfg.Store.UpdateVM(context.WithoutCancel(ctx), id, func(v *banger.VM) error { v.Workspace = nil; return nil })
	return err
}

// WorkspaceStatus asks the guest what has changed since the workspace was carried in.
func (s *Service) WorkspaceStatus(ctx context.Context, ref string) (banger.Workspace, guestapi.WorkStatus, error) {
	vm, conn, err := s.Guest(ctx, ref)
	if err != nil {
		return banger.Workspace{}, guestapi.WorkStatus{}, err
	}
	if vm.Workspace == nil {
		return banger.Workspace{}, guestapi.WorkStatus{}, noWorkspace(vm)
	}
	st, err := workStatus(ctx, conn, *vm.Workspace)
	return *vm.Workspace, st, err
}

func noWorkspace(vm banger.VM) error {
	return errkind.WithHint(errkind.New(api.KindNotFound, "vm %q has no workspace", vm.Name),
		"carry one in: `banger vm workspace prepare %s PATH`", vm.Name)
}

func workStatus(ctx context.Context, conn *guest.Conn, ws banger.Workspace) (guestapi.WorkStatus, error) {
	var st guestapi.WorkStatus
	err := conn.Call(ctx, guestapi.MethodWorkStat, guestapi.WorkRef{Path: ws.GuestPath, BaseTree: ws.BaseTree}, &st)
	return st, err
}

// Unexported reports whether a workspace in state st holds changes that no export carried out.
func Unexported(ws banger.Workspace, st guestapi.WorkStatus) bool {
	return st.Changed && (st.Tree == "" || st.Tree != ws.ExportedTree)
}

// statusTimeout bounds the question about changes that precedes a stop or a delete.
const statusTimeout = 15 * time.Second

// changes asks a running guest whether it has unexported work. No answer is no proof of its absence.
func (s *Service) changes(ctx context.Context, run *capability.Run) banger.Changes {
	vm, err := s.Get(ctx, string(run.VM.ID))
	if err != nil || vm.Workspace == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	conn, err := run.Link.Get(ctx)
	if err != nil {
		return banger.ChangesUnknown
	}
	st, err := workStatus(ctx, conn, *vm.Workspace)
	if err != nil {
		s.log.Warn("workspace status", "vm", vm.Name, "err", err)
		return banger.ChangesUnknown
	}
	if Unexported(*vm.Workspace, st) {
		return banger.ChangesPresent
	}
	return banger.ChangesClean
}

// ExportWorkspace opens an export. base "commit" makes a patch against the base commit instead of what was carried in.
// The caller reads the stream to its exit frame and then reports success to [Service.WorkspaceExported].
func (s *Service) ExportWorkspace(ctx context.Context, ref, format, base string) (*guest.Stream, guestapi.WorkOutReply, error) {
	var reply guestapi.WorkOutReply
	vm, conn, err := s.Guest(ctx, ref)
	if err != nil {
		return nil, reply, err
	}
	if vm.Workspace == nil {
		return nil, reply, noWorkspace(vm)
	}
	ws := *vm.Workspace
	out := guestapi.WorkOut{
		WorkRef: guestapi.WorkRef{Path: ws.GuestPath, BaseTree: ws.BaseTree}, Format: cmp.Or(format, "patch"), BaseCommit: ws.BaseCommit,
	}
	switch base {
	case "", "import":
	case "commit":
		out.BaseTree = ws.BaseCommit + "^{tree}"
	default:
		return nil, reply, errkind.New(api.KindInvalid, "bad base %q: want import or commit", base)
	}
	stream, err := conn.Open(ctx, guestapi.MethodWorkOut, out, &reply)
	return stream, reply, err
}

// WorkspaceExported records that the state with this tree id was carried out.
func (s *Service) WorkspaceExported(ctx context.Context, ref, tree string) error {
	vm, err := s.Get(ctx, ref)
	if err != nil {
		return err
	}
	_, err = s.cfg.Store.UpdateVM(ctx, vm.ID, func(v *banger.VM) error {
		if v.Workspace != nil {
			v.Workspace.ExportedTree, v.Workspace.Exported = tree, time.Now().UTC()
		}
		return nil
	})
	return err
}

// rescue writes the unexported changes of an abandoned VM to a patch, or to a tar when the guest has no git. A VM that does
// not run is rescued only if it is known to be clean.
func (s *Service) rescue(ctx context.Context, vm banger.VM) error {
	if vm.Workspace == nil {
		return nil
	}
	if vm.State != banger.Running {
		return unexported(vm, vm.Workspace.Changes)
	}
	stream, reply, err := s.ExportWorkspace(ctx, string(vm.ID), "patch", "import")
	if err != nil {
		return err
	}
	defer stream.Close()
	if !Unexported(*vm.Workspace, reply.Status) {
		return nil
	}
	name := fmt.Sprintf("%s-%s-%s.%s", path.Base(vm.Workspace.GuestPath), vm.Name, time.Now().UTC().Format("20060102T150405Z"), reply.Format)
	file := filepath.Join(s.cfg.Dirs.PatchesDir(), name)
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(guest.Receive(f, stream), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	s.log.Info("workspace of an abandoned vm was exported", "vm", vm.Name, "file", file)
	return s.WorkspaceExported(ctx, string(vm.ID), reply.Status.Tree)
}
