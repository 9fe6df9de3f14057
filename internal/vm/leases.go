package vm

import (
	"context"

	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/opstate"
)

// Lease holds the VM that ref names for a client until release is called. Only ephemeral VMs need one.
func (s *Service) Lease(ctx context.Context, ref string) (vm banger.VM, release func(), err error) {
	vm, err = s.Get(ctx, ref)
	if err != nil {
		return vm, nil, err
	}
	if !vm.Spec.Ephemeral {
		return vm, func() {}, nil
	}
	return vm, s.leases.Hold(vm.ID), nil
}

// leaseExpired rescues what an abandoned ephemeral VM holds and deletes it. A rescue that fails keeps the VM.
func (s *Service) leaseExpired(id banger.VMID) {
	s.bg.Go(func() {
		ctx, cancel := context.WithTimeout(s.ctx, cleanTimeout)
		defer cancel()
		vm, err := s.Get(ctx, string(id))
		if err != nil {
			return // its client deleted it
		}
		s.log.Info("ephemeral vm was abandoned", "vm", vm.Name)
		if err := s.rescue(ctx, vm); err != nil {
			s.log.Error("abandoned vm is kept: its workspace could not be exported", "vm", vm.Name, "err", err)
			return
		}
		if err := s.Delete(ctx, string(id), true, opstate.Discard); err != nil {
			s.log.Error("delete abandoned vm", "vm", vm.Name, "err", err)
		}
	})
}
