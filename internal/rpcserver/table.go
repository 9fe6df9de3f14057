package rpcserver

import (
	"context"
	"reflect"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm"
	"github.com/banger-vm/banger/internal/vm/meter"
)

// Daemon is the daemon itself, as its methods need it.
type Daemon interface {
	Ping() api.Ping
	Info(ctx context.Context) (api.Info, error)
	Config() api.ConfigList
	Doctor(ctx context.Context, ask api.DoctorAsk) api.Doctor
	Fix(ctx context.Context, ask api.DoctorAsk) api.Doctor
	Metrics() (string, error)
	WebLogin() (api.WebLogin, error)
	Stop() // begins a graceful stop and returns
	SSHIdentity() string
}

// Images is the image service.
type Images interface {
	List(ctx context.Context) ([]banger.Image, error)
	Get(ctx context.Context, ref string) (banger.Image, error)
	Delete(ctx context.Context, ref string) error
	BuildDebian(ctx context.Context, p api.ImageBuild, r opstate.Reporter) (banger.Image, error)
	BuildRecipe(ctx context.Context, p api.ImageRecipe, r opstate.Reporter) (banger.Image, error)
	Pull(ctx context.Context, p api.ImagePull, r opstate.Reporter) (banger.Image, error)
	Users(ctx context.Context, id banger.ImageID) ([]string, error)
}

// Kernels is the kernel service.
type Kernels interface {
	List(ctx context.Context) ([]banger.Kernel, error)
	Get(ctx context.Context, ref string) (banger.Kernel, error)
	Delete(ctx context.Context, ref string) error
	Import(ctx context.Context, p api.KernelImport, r opstate.Reporter) (banger.Kernel, error)
	Users(ctx context.Context, name string) ([]string, error)
}

// Templates are what VMs start warm from.
type Templates interface {
	List() ([]api.Template, error)
	Remove(id string) error
	// PruneUseless removes those that no VM could begin with any more, and those beyond the budget.
	PruneUseless(ctx context.Context) ([]api.Template, error)
	PruneAll() ([]api.Template, error)
}

// Sessions is the service of sessions.
type Sessions interface {
	List(ctx context.Context, refs []string) ([]api.Session, error)
	// Call passes a call about sessions on to the agent of the VM that ref names.
	Call(ctx context.Context, ref, method string, params, result any) (banger.VM, error)
}

// Services is what the methods call.
type Services struct {
	Daemon    Daemon
	VMs       *vm.Service
	Meter     *meter.Meter
	Sessions  Sessions
	Templates Templates
	Images    Images
	Kernels   Kernels
	Ops       *opstate.Registry
	Events    Events
}

// Methods returns the method table: every method of package api, once.
func Methods(s Services) []Method {
	var table []Method
	table = append(table, daemonMethods(s)...)
	table = append(table, eventMethods(s)...)
	table = append(table, templateMethods(s)...)
	table = append(table, vmMethods(s)...)
	table = append(table, pauseMethods(s)...)
	table = append(table, guestMethods(s)...)
	table = append(table, sessionMethods(s)...)
	table = append(table, workspaceMethods(s)...)
	table = append(table, imageMethods(s)...)
	table = append(table, kernelMethods(s)...)
	return append(table, operationMethods(s)...)
}

func daemonMethods(s Services) []Method {
	return []Method{
		Call(Read, api.MethodPing, "Says which daemon and protocol version answers.",
			func(context.Context, api.Empty) (api.Ping, error) { return s.Daemon.Ping(), nil }),
		Call(Read, api.MethodInfo, "Describes the daemon: directories, engine, counts.",
			func(ctx context.Context, _ api.Empty) (api.Info, error) { return s.Daemon.Info(ctx) }),
		Call(Admin, api.MethodStop, "Stops the daemon gracefully; VMs keep running.",
			func(context.Context, api.Empty) (api.Empty, error) { s.Daemon.Stop(); return api.Empty{}, nil }),
		Call(Read, api.MethodDoctor, "Checks the host and the daemon, with what to do about each finding.",
			func(ctx context.Context, p api.DoctorAsk) (api.Doctor, error) { return s.Daemon.Doctor(ctx, p), nil }),
		Call(Admin, api.MethodFix, "Checks as daemon.doctor does, and puts right what is safe to: leftovers, missing directories, modes.",
			func(ctx context.Context, p api.DoctorAsk) (api.Doctor, error) { return s.Daemon.Fix(ctx, p), nil }),
		Call(Read, api.MethodConfig, "Lists the configuration in force, with the origin of each value.",
			func(context.Context, api.Empty) (api.ConfigList, error) { return s.Daemon.Config(), nil }),
		Call(Read, api.MethodMetrics, "Returns the daemon's metrics in the text format of Prometheus.",
			func(context.Context, api.Empty) (api.Metrics, error) {
				text, err := s.Daemon.Metrics()
				return api.Metrics{Text: text}, err
			}),
		Call(Admin, api.MethodWebLogin, "Returns a link that logs a browser in to the web UI, once.",
			func(context.Context, api.Empty) (api.WebLogin, error) { return s.Daemon.WebLogin() }),
	}
}

func operationMethods(s Services) []Method {
	return []Method{
		Call(Read, api.MethodOperationList, "Lists operations, newest first.",
			func(context.Context, api.Empty) (api.OperationList, error) {
				return api.OperationList{Operations: s.Ops.List()}, nil
			}),
		Call(Read, api.MethodOperationGet, "Shows one operation.",
			func(_ context.Context, p api.OperationRef) (api.Operation, error) { return s.Ops.Get(p.ID) }),
		Call(Write, api.MethodOperationCancel, "Cancels an operation and waits until it has been undone.",
			func(ctx context.Context, p api.OperationRef) (api.Operation, error) { return cancelOp(ctx, s, p) }),
		Stream[api.OperationRef, api.Operation](Read, Lines, api.MethodOperationWatch,
			"Sends an operation as a line each time it changes, until it has ended.",
			func(ctx context.Context, p api.OperationRef, c *Conn) error { return watchOp(ctx, s, p, c) }).
			each(reflect.TypeFor[api.Operation]()),
	}
}

func cancelOp(ctx context.Context, s Services, p api.OperationRef) (api.Operation, error) {
	if err := s.Ops.Cancel(ctx, p.ID); err != nil {
		return api.Operation{}, err
	}
	return s.Ops.Get(p.ID)
}

func watchOp(ctx context.Context, s Services, p api.OperationRef, c *Conn) error {
	op, err := s.Ops.Get(p.ID)
	if err != nil {
		return err
	}
	if err := c.Accept(op); err != nil {
		return err
	}
	return s.Ops.Watch(c.untilHangUp(ctx), op.ID, func(op api.Operation) error { return api.WriteLine(c, op) })
}

func workspaceMethods(s Services) []Method {
	return []Method{
		Stream[api.WorkPrepare, api.Workspace](Write, Frames, api.MethodWorkPrepare,
			"Records a workspace and carries it into the guest.",
			func(ctx context.Context, p api.WorkPrepare, c *Conn) error {
				stream, err := s.VMs.PrepareWorkspace(ctx, p.Ref.Ref, workspaceIn(p.Workspace))
				if err != nil {
					return err
				}
				defer s.VMs.Use(ctx, p.Ref.Ref)()
				return c.join(ctx, stream, p.Workspace)
			}),
		Stream[api.WorkExport, guestapi.WorkOutReply](Read, Frames, api.MethodWorkExport,
			"Carries a workspace's changes out as a patch, bundle or tar.",
			func(ctx context.Context, p api.WorkExport, c *Conn) error {
				stream, reply, err := s.VMs.ExportWorkspace(ctx, p.Ref.Ref, p.Format, p.Base)
				if err != nil {
					return err
				}
				defer s.VMs.Use(ctx, p.Ref.Ref)()
				return c.join(ctx, stream, reply)
			}),
		Call(Write, api.MethodWorkExported, "Records that an export was stored safely by the client.",
			func(ctx context.Context, p api.WorkExported) (api.Empty, error) {
				return api.Empty{}, s.VMs.WorkspaceExported(ctx, p.Ref.Ref, p.Tree)
			}),
		Call(Read, api.MethodWorkStatus, "Tells what has changed in a workspace, and whether that was exported.",
			func(ctx context.Context, p api.Ref) (api.WorkStatus, error) {
				ws, st, err := s.VMs.WorkspaceStatus(ctx, p.Ref)
				return api.WorkStatus{Workspace: workspaceOut(ws), Unexported: vm.Unexported(ws, st), Status: st}, err
			}),
	}
}
