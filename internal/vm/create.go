package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vm/spec"
	"github.com/banger-vm/banger/internal/vm/vmlock"
)

// BeginCreate checks p as far as it can without I/O and begins an operation that creates the VM, and starts it if p asks
// for that. A VM whose creation fails or is canceled is removed.
func (s *Service) BeginCreate(p api.VMCreate) (api.Operation, error) {
	if err := s.checkCreate(p); err != nil {
		return api.Operation{}, err
	}
	op := s.cfg.Ops.Begin(api.MethodVMCreate, p.Name, func(ctx context.Context, op *opstate.Op) (any, error) {
		vm, err := s.create(ctx, p, op)
		if err != nil {
			return nil, err
		}
		return api.Ref{Ref: string(vm.ID)}, nil
	})
	return op, nil
}

func (s *Service) checkCreate(p api.VMCreate) error {
	if p.Name != "" {
		if err := banger.CheckName("vm", p.Name); err != nil {
			return err
		}
	}
	if err := s.checkSize(p.VMM, p.VCPU, p.MemMiB); err != nil {
		return err
	}
	if err := spec.CheckEnv(p.Env); err != nil {
		return err
	}
	if err := spec.CheckGroup(p.Group); err != nil {
		return err
	}
	ports, err := spec.Publish(p.Publish)
	if err != nil {
		return err
	}
	if p.AutoStopMS != nil && *p.AutoStopMS < 0 {
		return errkind.New(api.KindInvalid, "a VM cannot be stopped %d ms before it is used", -*p.AutoStopMS)
	}
	if p.Start {
		driver, err := s.driver(p.VMM)
		if err == nil {
			err = preflight.Refuse(driver.Features().Unfitness(s.cfg.Taps))
		}
		if err == nil {
			err = s.cfg.Ports.Check("", ports)
		}
		if err != nil {
			return err // before an image is built for nothing
		}
	}
	if p.Init != "" && p.Init != string(guestapi.InitAgent) && !strings.HasPrefix(p.Init, "/") {
		return errkind.WithHint(errkind.New(api.KindInvalid, "bad init %q", p.Init),
			"use agent, or the absolute path of the image's init, such as /sbin/init")
	}
	return nil
}

// checkSize checks processors and memory, where zero is the default.
func (s *Service) checkSize(vmm string, vcpu, memMiB int) error {
	if vcpu < 0 || vcpu > s.cfg.HostCPUs {
		return errkind.WithHint(errkind.New(api.KindInvalid, "%d vCPUs: this host has %d", vcpu, s.cfg.HostCPUs),
			"ask for 1 to %d", s.cfg.HostCPUs)
	}
	driver, err := s.driver(vmm)
	if err != nil {
		return err
	}
	if least := driver.Features().MinMemMiB; memMiB != 0 && memMiB < least {
		return errkind.WithHint(errkind.New(api.KindInvalid, "%d MiB of memory is too little", memMiB),
			"%s needs at least %d MiB", driver.Name(), least)
	}
	return nil
}

// createOp is what a running creation tells its operation.
type createOp interface {
	opstate.Reporter
	SetSubject(name string)
}

func (s *Service) create(ctx context.Context, p api.VMCreate, op createOp) (banger.VM, error) {
	if p.Name != "" {
		if err := s.nameFree(ctx, p.Name); err != nil {
			return banger.VM{}, err // before an image is built for nothing; CreateVM decides
		}
	}
	op.Stage("resolve image and kernel")
	want, err := s.resolve(ctx, p, op)
	if err != nil {
		return banger.VM{}, err
	}
	op.Stage("reserve name")
	vm, err := s.reserve(ctx, p.Name, want)
	if err == nil {
		err = s.step(ctx, stepReserved)
	}
	if err != nil {
		// A request that ends while the record is written may leave it written.
		return vm, errors.Join(err, s.discard(ctx, vm))
	}
	op.SetSubject(vm.Name)
	ctx, unlock, err := s.locks.Lock(ctx, vm.ID, vmlock.Holder{VM: vm.Name, Action: "being created", Op: op.ID()})
	if err != nil {
		return vm, errors.Join(err, s.discard(ctx, vm))
	}
	defer unlock()
	if err := s.populate(ctx, vm, p.Start, op); err != nil {
		return vm, errors.Join(fmt.Errorf("create vm %q: %w", vm.Name, err), s.discard(ctx, vm))
	}
	s.log.Info("vm created", "vm", vm.Name, "id", vm.ID, "image", want.Image, "kernel", want.Kernel)
	if p.Ephemeral {
		s.leases.Expect(vm.ID)
	}
	return s.Get(ctx, string(vm.ID))
}

func (s *Service) nameFree(ctx context.Context, name string) error {
	vms, err := s.List(ctx)
	if err != nil {
		return err
	}
	for _, vm := range vms {
		if vm.Name == name {
			return errkind.WithHint(errkind.New(api.KindExists, "vm %q exists", name),
				"choose another name, or delete it: `banger vm delete %s`", name)
		}
	}
	return nil
}

// populate makes the VM's directory and, if asked, starts it. The creation is complete when Pending is cleared.
func (s *Service) populate(ctx context.Context, vm banger.VM, start bool, r opstate.Reporter) error {
	if err := host.PrivateDir(s.cfg.Dirs.VMDir(vm.ID)); err != nil {
		return err
	}
	if start {
		if err := s.startLocked(ctx, vm, r); err != nil {
			return err
		}
	}
	_, err := s.cfg.Store.UpdateVM(ctx, vm.ID, func(v *banger.VM) error { v.Pending = false; return nil })
	return err
}

// discard removes a VM whose creation failed, although the request may have ended.
func (s *Service) discard(ctx context.Context, vm banger.VM) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTimeout)
	defer cancel()
	if r := s.Run(vm.ID); r != nil {
		s.setRun(vm.ID, nil)
		if err := s.cfg.Chain.Detach(ctx, r); err != nil {
			s.log.Error("discard", "vm", vm.Name, "err", err)
		}
	}
	return s.remove(ctx, vm)
}

const discardTimeout = 30 * time.Second

// resolve turns a request into a complete spec.
func (s *Service) resolve(ctx context.Context, p api.VMCreate, r opstate.Reporter) (banger.Spec, error) {
	d := s.cfg.Defaults
	image, err := s.image(ctx, cmp.Or(p.Image, d.Image), r)
	if err != nil {
		return banger.Spec{}, err
	}
	kernel, err := s.kernel(ctx, cmp.Or(p.Kernel, image.Kernel, d.Kernel), r)
	if err != nil {
		return banger.Spec{}, err
	}
	driver, err := s.driver(p.VMM)
	if err != nil {
		return banger.Spec{}, err
	}
	cloner, err := d.Cloner(driver.Features().Formats)
	if err != nil {
		return banger.Spec{}, err
	}
	want := banger.Spec{
		ImageID: image.ID, Image: image.Name, KernelID: kernel.ID, Kernel: kernel.Name,
		VMM: cmp.Or(p.VMM, "auto"), Init: cmp.Or(guestapi.InitMode(p.Init), image.Init, guestapi.InitAgent),
		VCPU: cmp.Or(p.VCPU, d.VCPU), MemMiB: cmp.Or(p.MemMiB, d.MemMiB),
		RootSize: cmp.Or(p.RootSize, d.RootSize, image.RootSize), WorkSize: cmp.Or(p.DiskSize, d.WorkSize, image.WorkSize),
		NAT: d.NAT, Group: p.Group, Env: p.Env, Cloner: cloner, Ephemeral: p.Ephemeral, Cold: p.Cold,
	}
	if image.Run != nil {
		want.Env = slices.Concat(image.Run.Env, p.Env) // of two values the later one holds
	}
	if p.NAT != nil {
		want.NAT = *p.NAT
	}
	if want.Publish, err = spec.Publish(p.Publish); err != nil {
		return want, err
	}
	want.AutoStop = spec.Duration(p.AutoStopMS)
	if want.RootSize < image.RootSize || want.WorkSize < image.WorkSize {
		return want, errkind.WithHint(errkind.New(api.KindInvalid, "disks cannot be smaller than the image's"),
			"image %q has a root of %d and a work-seed of %d bytes", image.Name, image.RootSize, image.WorkSize)
	}
	return want, nil
}

func (s *Service) image(ctx context.Context, ref string, r opstate.Reporter) (banger.Image, error) {
	if ref == "" {
		return s.cfg.Images.EnsureDefault(ctx, r)
	}
	image, err := s.cfg.Images.Get(ctx, ref)
	if errkind.Is(err, api.KindNotFound) {
		err = errkind.WithHint(err, "`banger image list` shows what there is; an image of a registry is fetched by `banger image pull %s`", ref)
	}
	return image, err
}

func (s *Service) kernel(ctx context.Context, ref string, r opstate.Reporter) (banger.Kernel, error) {
	if ref == "" {
		return s.cfg.Kernels.EnsureDefault(ctx, r)
	}
	return s.cfg.Kernels.Get(ctx, ref)
}

// nameTries is how many random names are tried before giving up; with thousands of names two in a row rarely collide.
const nameTries = 20

// reserve writes the VM's record, which takes its name, id and address.
func (s *Service) reserve(ctx context.Context, name string, want banger.Spec) (banger.VM, error) {
	vm := banger.VM{ID: banger.NewID[banger.VMID](), Name: name, State: banger.Created, Pending: true, Created: time.Now().UTC(),
		Network: s.cfg.Defaults.Network}
	vm.LastUsed = vm.Created
	var err error
	if vm.Spec, err = spec.Identify(want, vm.ID); err != nil {
		return vm, err
	}
	if name != "" {
		return vm, s.cfg.Store.CreateVM(ctx, vm)
	}
	for range nameTries {
		vm.Name = banger.RandomName()
		err = s.cfg.Store.CreateVM(ctx, vm)
		if !errkind.Is(err, api.KindExists) {
			return vm, err
		}
	}
	vm.Name = "vm-" + string(vm.ID)
	return vm, s.cfg.Store.CreateVM(ctx, vm)
}
