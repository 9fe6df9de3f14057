// Package session is the host's side of sessions. They belong to the agents of running guests, which know them best; the host keeps
// an index, of what each agent said last, for VMs that cannot be asked. The index is never a reason to act.
package session

import (
	"context"
	"log/slog"
	"reflect"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/guest"
)

// VMs finds VMs and their agents.
type VMs interface {
	List(ctx context.Context) ([]banger.VM, error)
	Get(ctx context.Context, ref string) (banger.VM, error)
	Guest(ctx context.Context, ref string) (banger.VM, *guest.Conn, error)
}

// Index remembers the sessions of VMs.
type Index interface {
	// Sessions returns what was put last; nothing is no error.
	Sessions(ctx context.Context, id banger.VMID) ([]guestapi.Session, error)
	// PutSessions replaces it.
	PutSessions(ctx context.Context, id banger.VMID, sessions []guestapi.Session) error
}

// Service lists the sessions of VMs, and changes them.
type Service struct {
	vms   VMs
	index Index
	log   *slog.Logger
}

// New returns a service.
func New(vms VMs, index Index, log *slog.Logger) *Service {
	return &Service{vms: vms, index: index, log: log}
}

// askTimeout is how long an agent may take to list its sessions before the index is taken instead.
const askTimeout = 5 * time.Second

// List returns the sessions of the VMs that refs name, all VMs without any: as their agents tell, or else as the index has it.
func (s *Service) List(ctx context.Context, refs []string) ([]api.Session, error) {
	var vms []banger.VM
	var err error
	if len(refs) == 0 {
		vms, err = s.vms.List(ctx)
	}
	for _, ref := range refs {
		vm, err := s.vms.Get(ctx, ref)
		if err != nil {
			return nil, err
		}
		vms = append(vms, vm)
	}
	if err != nil {
		return nil, err
	}
	found := make([][]guestapi.Session, len(vms))
	var g errgroup.Group
	g.SetLimit(16)
	for i, vm := range vms {
		g.Go(func() (err error) { found[i], err = s.of(ctx, vm); return err })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all := []api.Session{}
	for i, vm := range vms {
		for _, one := range found[i] {
			all = append(all, api.Session{Session: one, VM: vm.Name, VMID: string(vm.ID)})
		}
	}
	return all, nil
}

// of returns the sessions of one VM.
func (s *Service) of(ctx context.Context, vm banger.VM) ([]guestapi.Session, error) {
	if vm.State == banger.Running {
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		_, conn, err := s.vms.Guest(ask, string(vm.ID))
		if err == nil {
			var list []guestapi.Session
			if list, err = s.ask(ask, vm.ID, conn); err == nil {
				return list, nil
			}
		}
		s.log.Warn("sessions are told from the index: the guest does not answer", "vm", vm.Name, "err", err)
	}
	list, err := s.index.Sessions(ctx, vm.ID)
	for i := range list {
		if !vm.State.Live() && !list[i].State.Done() {
			list[i].State, list[i].PID, list[i].Attached = guestapi.SessionLost, 0, 0
		}
	}
	return list, err
}

// ask asks an agent for its sessions, and brings the index up to date.
func (s *Service) ask(ctx context.Context, id banger.VMID, conn *guest.Conn) ([]guestapi.Session, error) {
	var list guestapi.SessionList
	if err := conn.Call(ctx, guestapi.MethodSessionList, nil, &list); err != nil {
		return nil, err
	}
	known, err := s.index.Sessions(ctx, id)
	if err == nil && !reflect.DeepEqual(stable(known), stable(list.Sessions)) {
		err = s.index.PutSessions(ctx, id, list.Sessions)
	}
	if err != nil {
		s.log.Error("note the sessions of a VM", "vm", id, "err", err)
	}
	return list.Sessions, nil
}

// stable is what of sessions is worth a write to the index; what changes with each line of output is not.
func stable(sessions []guestapi.Session) []guestapi.Session {
	var out []guestapi.Session
	for _, one := range sessions {
		out = append(out, guestapi.Session{ID: one.ID, Name: one.Name, State: one.State, Restarts: one.Restarts})
	}
	return out
}

// Call makes a call about sessions of one VM's agent, and notes in the index what came of it.
func (s *Service) Call(ctx context.Context, ref, method string, params, result any) (banger.VM, error) {
	vm, conn, err := s.vms.Guest(ctx, ref)
	if err != nil {
		return vm, err
	}
	if err := conn.Call(ctx, method, params, result); err != nil {
		return vm, err
	}
	switch method {
	case guestapi.MethodSessionStart, guestapi.MethodSessionStop, guestapi.MethodSessionDelete, guestapi.MethodSessionWait:
		if _, err := s.ask(ctx, vm.ID, conn); err != nil {
			s.log.Warn("the index of sessions is not up to date", "vm", vm.Name, "err", err)
		}
	}
	return vm, nil
}
