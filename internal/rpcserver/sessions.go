package rpcserver

import (
	"context"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
)

// sessionMethods are about sessions: the agent's own methods, with a VM beside their parameters.
func sessionMethods(s Services) []Method {
	// one makes a call that is answered with a session.
	one := func(ctx context.Context, ref api.Ref, method string, params any) (api.Session, error) {
		var out api.Session
		vm, err := s.Sessions.Call(ctx, ref.Ref, method, params, &out.Session)
		out.VM, out.VMID = vm.Name, string(vm.ID)
		return out, err
	}
	// none makes a call that is answered with nothing.
	none := func(ctx context.Context, ref api.Ref, method string, params any) (api.Empty, error) {
		_, err := s.Sessions.Call(ctx, ref.Ref, method, params, nil)
		return api.Empty{}, err
	}
	return []Method{
		Call(Write, api.MethodSessionStart, "Starts a session: a command that outlives its client.",
			func(ctx context.Context, p api.SessionStart) (api.Session, error) {
				return one(ctx, p.Ref, guestapi.MethodSessionStart, p.SessionSpec)
			}),
		Call(Read, api.MethodSessionList, "Lists sessions of some VMs or of all.",
			func(ctx context.Context, p api.SessionsOf) (api.SessionList, error) {
				list, err := s.Sessions.List(ctx, p.Refs)
				return api.SessionList{Sessions: list}, err
			}),
		Call(Read, api.MethodSessionGet, "Shows one session.",
			func(ctx context.Context, p api.SessionRef) (api.Session, error) {
				return one(ctx, p.Ref, guestapi.MethodSessionGet, p.SessionRef)
			}),
		Call(Read, api.MethodSessionWait, "Waits until a session has ended.",
			func(ctx context.Context, p api.SessionRef) (api.Session, error) {
				return one(ctx, p.Ref, guestapi.MethodSessionWait, p.SessionRef)
			}),
		Call(Write, api.MethodSessionSignal, "Sends a signal to a session's process group.",
			func(ctx context.Context, p api.SessionSignal) (api.Empty, error) {
				return none(ctx, p.Ref, guestapi.MethodSessionSignal, p.SessionSignal)
			}),
		Call(Write, api.MethodSessionStop, "Ends a session with all its processes, and waits for that.",
			func(ctx context.Context, p api.SessionStop) (api.Session, error) {
				return one(ctx, p.Ref, guestapi.MethodSessionStop, p.SessionStop)
			}),
		Call(Write, api.MethodSessionSend, "Gives a session input, without attaching.",
			func(ctx context.Context, p api.SessionSend) (api.Empty, error) {
				return none(ctx, p.Ref, guestapi.MethodSessionSend, p.SessionSend)
			}),
		Call(Write, api.MethodSessionDelete, "Forgets a session that has ended, with its log.",
			func(ctx context.Context, p api.SessionDelete) (api.Empty, error) {
				return none(ctx, p.Ref, guestapi.MethodSessionDelete, p.SessionDelete)
			}),
		Stream[api.SessionLogs, guestapi.Session](Read, Frames, api.MethodSessionLogs, "Sends output of a session.",
			func(ctx context.Context, p api.SessionLogs, c *Conn) error {
				return openGuest[guestapi.Session](ctx, s, p.Ref.Ref, guestapi.MethodSessionLogs, p.SessionLogs, c)
			}),
		Stream[api.SessionAttach, guestapi.SessionAttached](Write, Frames, api.MethodSessionAttach, "Joins a client to a session.",
			func(ctx context.Context, p api.SessionAttach, c *Conn) error {
				return openGuest[guestapi.SessionAttached](ctx, s, p.Ref.Ref, guestapi.MethodSessionAttach, p.SessionAttach, c)
			}),
	}
}
