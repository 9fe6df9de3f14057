package capabilities

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/banger-vm/banger/internal/initramfs"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vm/capability"
)

// Boot gives a VM its kernel and an initramfs with everything the agent must know. It comes after every capability that
// adds to the boot configuration.
type Boot struct {
	Builder *initramfs.Builder
}

// Name implements capability.Capability.
func (*Boot) Name() string { return "boot" }

// Checks asks whether the files that a guest boots from are there and whole.
func (b *Boot) Checks(r *capability.Run) []preflight.Check {
	return []preflight.Check{
		{Name: "kernel", Ask: func(context.Context) (string, []preflight.Problem) { return r.Kernel.Name, preflight.Kernel(r.Kernel) }},
		{Name: "agent", Ask: func(context.Context) (string, []preflight.Problem) {
			if err := b.Builder.CheckAgent(); err != nil {
				return preflight.Failed(err)
			}
			return "there", nil
		}},
	}
}

func initrd(r *capability.Run) string { return filepath.Join(r.Dir, "initrd") }

// Attach implements capability.Capability.
func (b *Boot) Attach(ctx context.Context, r *capability.Run) error {
	vm, cfg := r.VM, &r.Boot
	cfg.Time = time.Now()
	if r.Template != nil {
		r.Spec.Restore = &r.Template.Saved
	}
	if r.Making {
		cfg.Name, cfg.Init, cfg.Template = vm.Name, vm.Spec.Init, true
		return b.build(ctx, r)
	}
	cfg.VMID, cfg.Name, cfg.Init, cfg.MachineID = string(vm.ID), vm.Name, vm.Spec.Init, vm.Spec.MachineID
	cfg.Env = vm.Spec.Env
	if r.Template != nil {
		return nil
	}
	return b.build(ctx, r)
}

func (b *Boot) build(ctx context.Context, r *capability.Run) error {
	r.Spec.Kernel, r.Spec.Initrd = r.Kernel.Image, initrd(r)
	kernel := r.Kernel
	if r.Driver.Features().PCI {
		kernel = kernel.OnPCI()
	}
	return b.Builder.Build(ctx, r.Spec.Initrd, kernel, r.Boot)
}

// Detach removes the initramfs: it holds the VM's host key, and is made afresh for each start.
func (*Boot) Detach(_ context.Context, r *capability.Run) error {
	if err := os.Remove(initrd(r)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
