package vm

import (
	"context"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/opstate"
)

// BeginTemplate begins an operation that makes a template for VMs like the one that p tells of, unless there is one. Its result is an
// [api.Ref] to it.
func (s *Service) BeginTemplate(p api.TemplateBuild) (api.Operation, error) {
	if err := s.checkSize(p.VMM, p.VCPU, p.MemMiB); err != nil {
		return api.Operation{}, err
	}
	return s.cfg.Ops.Begin(api.MethodTemplateBuild, p.Image, func(ctx context.Context, op *opstate.Op) (any, error) {
		op.Stage("resolve image and kernel")
		want, err := s.resolve(ctx, api.VMCreate{Image: p.Image, Kernel: p.Kernel, VMM: p.VMM, VCPU: p.VCPU, MemMiB: p.MemMiB}, op)
		if err != nil {
			return nil, err
		}
		run, err := s.newRun(ctx, banger.VM{Spec: want}, op)
		if err != nil {
			return nil, err
		}
		t, err := s.cfg.Templates.Build(ctx, run, op)
		return api.Ref{Ref: t.ID}, err
	}), nil
}
