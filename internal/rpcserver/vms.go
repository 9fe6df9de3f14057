package rpcserver

import (
	"cmp"
	"context"
	"strings"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/capabilities"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/opstate"
	"golang.org/x/sys/unix"
)

func pauseMethods(s Services) []Method {
	return []Method{
		Call(Write, api.MethodVMPause, "Halts the processors of a VM that runs; its memory stays.",
			func(ctx context.Context, p api.Ref) (api.VM, error) {
				return operate(ctx, s, api.MethodVMPause, p.Ref, func(ctx context.Context, ref string, op *opstate.Op) (banger.VM, error) {
					return s.VMs.Pause(ctx, ref, op)
				})
			}),
		Call(Write, api.MethodVMResume, "Lets a paused VM go on.",
			func(ctx context.Context, p api.Ref) (api.VM, error) {
				return operate(ctx, s, api.MethodVMResume, p.Ref, func(ctx context.Context, ref string, op *opstate.Op) (banger.VM, error) {
					return s.VMs.Resume(ctx, ref, op)
				})
			}),
	}
}

func vmMethods(s Services) []Method {
	one := func(v banger.VM, err error) (api.VM, error) {
		if err != nil {
			return api.VM{}, err
		}
		return vmOut(s.VMs, v), nil
	}
	return []Method{
		Call(Write, api.MethodVMBegin, "Begins the creation of a VM and returns its operation.",
			func(_ context.Context, p api.VMCreate) (api.OperationRef, error) {
				op, err := s.VMs.BeginCreate(p)
				return api.OperationRef{ID: op.ID}, err
			}),
		Call(Read, api.MethodVMStatus, "Shows the operation that creates a VM.",
			func(_ context.Context, p api.OperationRef) (api.Operation, error) { return s.Ops.Get(p.ID) }),
		Call(Write, api.MethodVMCancel, "Cancels the creation of a VM and waits until nothing of it is left.",
			func(ctx context.Context, p api.OperationRef) (api.Operation, error) { return cancelOp(ctx, s, p) }),
		Call(Write, api.MethodVMCreate, "Creates a VM and waits for it.",
			func(ctx context.Context, p api.VMCreate) (api.VM, error) { return createVM(ctx, s, p) }),
		Call(Read, api.MethodVMList, "Lists VMs, oldest first.",
			func(ctx context.Context, _ api.Empty) (api.VMList, error) { return listVMs(ctx, s) }),
		Call(Read, api.MethodVMGet, "Shows one VM.",
			func(ctx context.Context, p api.Ref) (api.VM, error) { return one(s.VMs.Get(ctx, p.Ref)) }),
		Call(Write, api.MethodVMStart, "Starts a VM and waits until its guest answers.",
			func(ctx context.Context, p api.Ref) (api.VM, error) {
				return operate(ctx, s, api.MethodVMStart, p.Ref, func(ctx context.Context, ref string, op *opstate.Op) (banger.VM, error) {
					return s.VMs.Start(ctx, ref, op)
				})
			}),
		Call(Write, api.MethodVMStop, "Asks a guest to sync and power off, and kills it if that takes too long.",
			func(ctx context.Context, p api.VMStop) (api.VM, error) {
				return operate(ctx, s, api.MethodVMStop, p.Ref.Ref, func(ctx context.Context, ref string, op *opstate.Op) (banger.VM, error) {
					return s.VMs.Stop(ctx, ref, milliseconds(p.TimeoutMS), op)
				})
			}),
		Call(Write, api.MethodVMRestart, "Stops a VM that runs, and starts it.",
			func(ctx context.Context, p api.VMRestart) (api.VM, error) {
				return operate(ctx, s, api.MethodVMRestart, p.Ref.Ref, func(ctx context.Context, ref string, op *opstate.Op) (banger.VM, error) {
					return s.VMs.Restart(ctx, ref, milliseconds(p.TimeoutMS), op)
				})
			}),
		Call(Write, api.MethodVMKill, "Ends a VM by a signal to its VMM, by default at once, as when the power fails.",
			func(ctx context.Context, p api.VMKill) (api.VM, error) {
				sig, err := killSignal(p.Signal)
				if err != nil {
					return api.VM{}, err
				}
				return operate(ctx, s, api.MethodVMKill, p.Ref.Ref, func(ctx context.Context, ref string, op *opstate.Op) (banger.VM, error) {
					return s.VMs.Kill(ctx, ref, sig, op)
				})
			}),
		Call(Write, api.MethodVMSet, "Changes what a VM is to be; what takes effect at a start needs a stopped VM, or a restart.",
			func(ctx context.Context, p api.VMSet) (api.VM, error) {
				return operate(ctx, s, api.MethodVMSet, p.Ref.Ref, func(ctx context.Context, ref string, op *opstate.Op) (banger.VM, error) {
					p.Ref.Ref = ref
					return s.VMs.Set(ctx, p, op)
				})
			}),
		Call(Write, api.MethodVMDelete, "Removes a VM and its disks; refuses while it runs or has unexported work, unless forced.",
			func(ctx context.Context, p api.VMDelete) (api.Empty, error) {
				_, err := operate(ctx, s, api.MethodVMDelete, p.Ref.Ref, func(ctx context.Context, ref string, op *opstate.Op) (banger.VM, error) {
					return banger.VM{}, s.VMs.Delete(ctx, ref, p.Force, op)
				})
				return api.Empty{}, err
			}),
		Call(Read, api.MethodVMSSH, "Tells what an SSH client needs to reach a VM.",
			func(ctx context.Context, p api.Ref) (api.VMSSH, error) { return sshOf(ctx, s, p.Ref) }),
		Call(Read, api.MethodVMHealth, "Asks a guest how it is.",
			func(ctx context.Context, p api.Ref) (api.VMHealth, error) {
				hello, stats, err := s.VMs.Health(ctx, p.Ref)
				return api.VMHealth{Hello: hello, Stats: stats}, err
			}),
		Call(Read, api.MethodVMPing, "Measures how long a guest's agent takes to answer.",
			func(ctx context.Context, p api.Ref) (api.VMPing, error) {
				rtt, err := s.VMs.Ping(ctx, p.Ref)
				return api.VMPing{RTTMicros: rtt.Microseconds()}, err
			}),
		Call(Read, api.MethodVMStats, "Tells what VMs use of processor, memory, disk and network.",
			func(ctx context.Context, p api.VMStatsRequest) (api.VMStatsList, error) {
				stats, err := s.Meter.Stats(ctx, p.Refs)
				return api.VMStatsList{VMs: stats}, err
			}),
		Call(Write, api.MethodVMPrune, "Deletes VMs that do not run and hold nothing unexported.",
			func(ctx context.Context, p api.VMPrune) (pruned api.VMPruned, err error) {
				err = s.Ops.Do(ctx, api.MethodVMPrune, "", func(ctx context.Context, op *opstate.Op) (err error) {
					pruned, err = s.VMs.Prune(ctx, p, op)
					return err
				})
				return pruned, err
			}),
		Stream[api.VMLogs, api.Empty](Read, Bytes, api.MethodVMLogs, "Sends a VM's console or VMM log.",
			func(ctx context.Context, p api.VMLogs, c *Conn) error { return sendLogs(ctx, s, p, c) }),
		Stream[api.Ref, api.VM](Write, Bytes, api.MethodVMLease,
			"Holds an ephemeral VM for as long as the connection is open.",
			func(ctx context.Context, p api.Ref, c *Conn) error { return holdLease(ctx, s, p, c) }),
	}
}

// killSignal is the signal that vm.kill means by name, with or without SIG.
func killSignal(name string) (syscall.Signal, error) {
	switch sig := unix.SignalNum("SIG" + strings.TrimPrefix(cmp.Or(name, "KILL"), "SIG")); sig {
	case unix.SIGKILL, unix.SIGTERM, unix.SIGINT, unix.SIGQUIT, unix.SIGHUP, unix.SIGABRT:
		return sig, nil
	}
	return 0, errkind.WithHint(errkind.New(api.KindInvalid, "bad signal %q", name), "use KILL, TERM, INT, QUIT, HUP or ABRT")
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// operate runs a life-cycle verb on the VM that ref names as an operation, so that others see what is going on and can cancel
// it. The caller waits, and its hanging up cancels.
func operate(ctx context.Context, s Services, method, ref string,
	fn func(ctx context.Context, ref string, op *opstate.Op) (banger.VM, error)) (api.VM, error) {
	v, err := s.VMs.Get(ctx, ref)
	if err != nil {
		return api.VM{}, err
	}
	err = s.Ops.Do(ctx, method, v.Name, func(ctx context.Context, op *opstate.Op) (err error) {
		v, err = fn(ctx, string(v.ID), op)
		return err
	})
	return vmOut(s.VMs, v), err
}

func createVM(ctx context.Context, s Services, p api.VMCreate) (api.VM, error) {
	op, err := s.VMs.BeginCreate(p)
	if err != nil {
		return api.VM{}, err
	}
	done, err := s.Ops.Wait(ctx, op.ID)
	if err != nil { // the caller is gone: its wish is, too
		s.Ops.Cancel(context.WithoutCancel(ctx), op.ID) //nolint:errcheck // it may have ended just now
		return api.VM{}, err
	}
	if done.Error != nil {
		return api.VM{}, done.Error
	}
	v, err := s.VMs.Get(ctx, done.Subject)
	return vmOut(s.VMs, v), err
}

func listVMs(ctx context.Context, s Services) (api.VMList, error) {
	vms, err := s.VMs.List(ctx)
	list := api.VMList{VMs: make([]api.VM, 0, len(vms))}
	for _, v := range vms {
		list.VMs = append(list.VMs, vmOut(s.VMs, v))
	}
	return list, err
}

func sshOf(ctx context.Context, s Services, ref string) (api.VMSSH, error) {
	v, err := s.VMs.Get(ctx, ref)
	if err != nil {
		return api.VMSSH{}, err
	}
	return api.VMSSH{
		Name: v.Name, User: "root", Identity: s.Daemon.SSHIdentity(),
		KnownHosts: capabilities.KnownHosts(s.VMs.Dir(v.ID)), HostAlias: capabilities.HostAlias(v.ID),
	}, nil
}

func sendLogs(ctx context.Context, s Services, p api.VMLogs, c *Conn) error {
	if err := s.VMs.CheckLogs(ctx, p); err != nil {
		return err
	}
	if err := c.Accept(api.Empty{}); err != nil {
		return err
	}
	return s.VMs.Logs(c.untilHangUp(ctx), p, c)
}

func holdLease(ctx context.Context, s Services, p api.Ref, c *Conn) error {
	v, release, err := s.VMs.Lease(ctx, p.Ref)
	if err != nil {
		return err
	}
	defer release()
	if err := c.Accept(vmOut(s.VMs, v)); err != nil {
		return err
	}
	<-c.untilHangUp(ctx).Done()
	return nil
}

// guestMethods are those that a guest's agent serves: the daemon opens the agent's stream and joins the two.
func guestMethods(s Services) []Method {
	return []Method{
		Call(Read, api.MethodVMPorts, "Lists what listens in a guest, and where the host reaches it.",
			func(ctx context.Context, p api.Ref) (api.VMPorts, error) { return portsOf(ctx, s, p.Ref) }),
		Call(Read, api.MethodVMStat, "Tells what is at a path in a guest.",
			func(ctx context.Context, p api.VMStat) (guestapi.Stat, error) {
				return askGuest[guestapi.Stat](ctx, s, p.Ref.Ref, guestapi.MethodStat, guestapi.TarOut{Path: p.Path})
			}),
		Stream[api.VMExec, guestapi.ExecStarted](Write, Frames, api.MethodVMExec, "Runs a command in a guest.",
			func(ctx context.Context, p api.VMExec, c *Conn) error {
				return openGuest[guestapi.ExecStarted](ctx, s, p.Ref.Ref, guestapi.MethodExec, p.ExecSpec, c)
			}),
		Stream[api.VMDial, api.Empty](Write, Bytes, api.MethodVMDial, "Connects to a port, a socket or the SSH server of a guest.",
			func(ctx context.Context, p api.VMDial, c *Conn) error {
				if p.SSH {
					return openGuest[api.Empty](ctx, s, p.Ref.Ref, guestapi.MethodSSH, nil, c)
				}
				return openGuest[api.Empty](ctx, s, p.Ref.Ref, guestapi.MethodDial, p.Dial, c)
			}),
		Stream[api.VMCopyIn, api.Empty](Write, Frames, api.MethodVMCopyIn, "Unpacks a tar in a guest.",
			func(ctx context.Context, p api.VMCopyIn, c *Conn) error {
				return openGuest[api.Empty](ctx, s, p.Ref.Ref, guestapi.MethodTarIn, p.TarIn, c)
			}),
		Stream[api.VMCopyOut, api.Empty](Read, Frames, api.MethodVMCopyOut, "Packs a file or directory of a guest as a tar.",
			func(ctx context.Context, p api.VMCopyOut, c *Conn) error {
				return openGuest[api.Empty](ctx, s, p.Ref.Ref, guestapi.MethodTarOut, p.TarOut, c)
			}),
	}
}

func portsOf(ctx context.Context, s Services, ref string) (api.VMPorts, error) {
	v, err := s.VMs.Get(ctx, ref)
	if err != nil {
		return api.VMPorts{}, err
	}
	found, err := askGuest[guestapi.Ports](ctx, s, string(v.ID), guestapi.MethodPorts, nil)
	if err != nil {
		return api.VMPorts{}, err
	}
	return portsOut(v, found.Ports), nil
}

func askGuest[R any](ctx context.Context, s Services, ref, method string, params any) (R, error) {
	var result R
	_, conn, err := s.VMs.Guest(ctx, ref)
	if err != nil {
		return result, err
	}
	return result, conn.Call(ctx, method, params, &result)
}

func openGuest[R any](ctx context.Context, s Services, ref, method string, params any, c *Conn) error {
	v, conn, err := s.VMs.Guest(ctx, ref)
	if err != nil {
		return err
	}
	var result R
	stream, err := conn.Open(ctx, method, params, &result)
	if err != nil {
		return err
	}
	defer s.VMs.Use(ctx, string(v.ID))()
	return c.join(ctx, stream, result)
}
