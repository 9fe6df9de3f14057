package runcmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/cli/attach"
	"github.com/banger-vm/banger/internal/cli/vmcmd"
	"github.com/banger-vm/banger/internal/cli/workcmd"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/workspace/source"
)

// runner is one run from the VM's creation to its end.
type runner struct {
	*options
	src    *source.Source // nil without a workspace
	client *client.Client
	vm     api.VM
	lease  io.Closer
}

// begin creates and starts the VM and carries the workspace in. When it fails nothing is left.
func (r *runner) begin(ctx context.Context, p api.VMCreate) error {
	c, err := r.app.Client(ctx)
	if err != nil {
		return err
	}
	r.client = c
	prog := r.app.Progress(r.quiet)
	defer prog.End()
	p.Start, p.Ephemeral = true, r.rm
	if err := r.create(ctx, p, prog); err != nil {
		return err
	}
	err = r.hold(ctx)
	if err == nil && r.src != nil {
		err = workcmd.Prepare(ctx, c, r.vm.ID, r.src, r.guestPath(), prog)
	}
	if err == nil && r.src != nil {
		r.vm, err = c.VMGet(ctx, r.vm.ID) // with its workspace
	}
	if err != nil {
		prog.Drop()
		r.release()
		return vmcmd.Discard(ctx, c, r.vm.ID, err)
	}
	return nil
}

// create makes the VM, and meanwhile the pack of what goes into it.
func (r *runner) create(ctx context.Context, p api.VMCreate, prog *app.Progress) error {
	packCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	var g errgroup.Group
	if r.src != nil {
		g.Go(func() error { return r.src.Pack(packCtx) })
	}
	var err error
	if r.vm, err = vmcmd.Create(ctx, r.app, r.client, p, prog); err != nil {
		cancel()
		g.Wait() // its error is the cancelling, or less than the one we have
		return err
	}
	if err := g.Wait(); err != nil {
		prog.Drop()
		return vmcmd.Discard(ctx, r.client, r.vm.ID, err)
	}
	return nil
}

func (r *runner) guestPath() string { return workcmd.GuestPath(r.src.Workspace("").Source) }

// hold takes the lease that keeps the daemon from deleting an ephemeral VM. It is held until release.
func (r *runner) hold(ctx context.Context) (err error) {
	if r.rm {
		r.lease, err = r.client.VMLease(context.WithoutCancel(ctx), r.vm.ID)
	}
	return err
}

func (r *runner) release() {
	if r.lease != nil {
		r.lease.Close()
		r.lease = nil
	}
}

// exec runs the command, or a login shell.
func (r *runner) exec(ctx context.Context) (frame.ExitStatus, error) {
	shell := len(r.argv) == 0
	p := api.VMExec{Ref: api.Ref{Ref: r.vm.ID}, ExecSpec: guestapi.ExecSpec{Argv: r.argv, User: r.user, Login: shell}}
	if shell {
		if err := r.useImages(ctx, &p.ExecSpec); err != nil {
			return frame.ExitStatus{}, err
		}
	}
	if r.src != nil {
		p.Cwd = r.guestPath()
	}
	return attach.Run(ctx, r.app, r.client, p, attach.Options{
		Input:    shell || !r.app.InTTY,
		Terminal: r.app.InTTY && r.app.OutTTY && (shell || r.tty),
	})
}

// useImages has the command run that the image names, if it names one, where nobody gave another.
func (r *runner) useImages(ctx context.Context, spec *guestapi.ExecSpec) error {
	img, err := r.client.ImageGet(ctx, r.vm.ImageID)
	if err != nil || img.Run == nil || len(img.Run.Command) == 0 {
		return err
	}
	spec.Argv, spec.Cwd, spec.User, spec.Login = img.Run.Command, img.Run.Dir, cmp.Or(spec.User, img.Run.User), false
	return nil
}

// sessionName is the session that a detached command runs in.
const sessionName = "main"

// leave starts the command, if there is one, as a session, and prints the VM's name. A command that cannot be executed leaves no VM.
func (r *runner) leave(ctx context.Context) error {
	if len(r.argv) > 0 {
		p := api.SessionStart{Ref: api.Ref{Ref: r.vm.ID}}
		p.Name, p.Argv, p.User = sessionName, r.argv, r.user
		if r.src != nil {
			p.Cwd = r.guestPath()
		}
		s, err := r.client.SessionStart(ctx, p)
		if err == nil && s.Started.IsZero() && s.Exit != nil {
			err = attach.Exit(r.app, *s.Exit)
		}
		if err != nil {
			return vmcmd.Discard(ctx, r.client, r.vm.ID, err)
		}
		if !r.quiet {
			fmt.Fprintf(r.app.Err, "banger: the command is session %s; join it with: banger vm session attach %s %s\n", sessionName, r.vm.Name, sessionName)
		}
	}
	fmt.Fprintln(r.app.Out, r.vm.Name)
	return nil
}

// end saves what changed, deletes the VM if that was asked for, and returns what the process ends with: the command's own status
// or what went wrong, the command's failure first.
func (r *runner) end(ctx context.Context, st frame.ExitStatus, failure error) error {
	if failure == nil {
		failure = attach.Exit(r.app, st)
	}
	if r.src != nil && (r.rm || r.patch != "" || r.apply) {
		done, err := r.save(ctx)
		if err != nil {
			return joinEnds(failure, r.kept(ctx, err))
		}
		if err := workcmd.Tell(ctx, r.app, r.vm, done, r.apply, ""); err != nil {
			failure = joinEnds(failure, err) // the changes are safe in the file
		}
	}
	if !r.rm {
		r.comeBack()
		return failure
	}
	undo, cancel := app.Undo(ctx)
	defer cancel()
	err := r.client.VMDelete(undo, api.VMDelete{Ref: api.Ref{Ref: r.vm.ID}, Force: true})
	if err != nil && !errkind.Is(err, api.KindNotFound) {
		return joinEnds(failure, errkind.WithHint(fmt.Errorf("delete VM %q: %w", r.vm.Name, err),
			"run `banger vm delete --force %s`", r.vm.Name))
	}
	return failure
}

// joinEnds keeps both failures; a guest command's mere exit status gives way to one of ours.
func joinEnds(command, ours error) error {
	var exit app.ExitError
	if command == nil || errors.As(command, &exit) {
		return ours
	}
	return app.Errors{command, ours}
}

// save stores what changed on the host. The daemon may have been replaced while the command ran.
func (r *runner) save(ctx context.Context) (workcmd.Exported, error) {
	c, err := r.app.Client(ctx)
	if err != nil {
		return workcmd.Exported{}, err
	}
	r.client = c
	return workcmd.Export(ctx, c, r.vm, api.WorkExport{Format: "patch"}, func(string) (string, error) {
		if r.patch != "" {
			return r.patch, nil
		}
		return workcmd.PatchFile(r.app, r.vm)
	})
}

// kept says that the VM is still there because its work could not be saved, and how to get at it.
func (r *runner) kept(ctx context.Context, err error) error {
	undo, cancel := app.Undo(ctx)
	defer cancel()
	start := ""
	if vm, getErr := r.client.VMGet(undo, r.vm.ID); getErr == nil && vm.State != "running" {
		start = fmt.Sprintf("banger vm start %s && ", r.vm.Name)
	}
	return errkind.WithHint(fmt.Errorf("save the changes of VM %q, which is kept: %w", r.vm.Name, err),
		"export them with `%sbanger vm workspace export %s --output FILE`, or drop them with `banger vm delete --force %s`",
		start, r.vm.Name, r.vm.Name)
}

// comeBack says how to use a VM that stays.
func (r *runner) comeBack() {
	if r.quiet {
		return
	}
	lines := []string{fmt.Sprintf("banger: VM %s keeps running; come back with: banger exec %s", r.vm.Name, r.vm.Name)}
	if r.src != nil {
		lines = append(lines, "        bring changes back with: banger vm workspace export --apply "+r.vm.Name)
	}
	lines = append(lines, "        end it with: banger vm stop "+r.vm.Name+", or banger vm delete --force "+r.vm.Name)
	io.WriteString(r.app.Err, strings.Join(lines, "\n")+"\n")
}
