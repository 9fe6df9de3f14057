package capabilities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vmm"
)

// Machine starts the VMM process and keeps its handle on disk while it runs.
type Machine struct {
	Drivers map[string]vmm.Driver
}

// Name implements capability.Capability.
func (*Machine) Name() string { return "machine" }

func handleFile(dir string) string { return config.MachineFile(dir) }

// ReadHandle reads the handle of the machine of the VM with that directory. Kind not-found: there is none.
func ReadHandle(dir string) (vmm.Handle, error) {
	var h vmm.Handle
	b, err := os.ReadFile(handleFile(dir))
	if errors.Is(err, os.ErrNotExist) {
		return h, errkind.New(api.KindNotFound, "no machine in %s", dir)
	}
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return h, errkind.New(api.KindDataLoss, "%s: %w", handleFile(dir), err)
	}
	return h, nil
}

// Checks asks the driver whether it can start such a machine.
func (*Machine) Checks(r *capability.Run) []preflight.Check {
	return []preflight.Check{{Name: "vmm", Ask: func(ctx context.Context) (string, []preflight.Problem) {
		var s vmm.Spec
		describe(&s, r)
		return r.Driver.Features().Engine, r.Driver.Check(ctx, s)
	}}}
}

// describe fills in what is known of a machine before its parts are made.
func describe(s *vmm.Spec, r *capability.Run) {
	s.ID, s.Name, s.Dir, s.RunDir = r.VM.ID, r.VM.Name, r.Dir, r.RunDir
	s.VCPU, s.MemMiB = r.VM.Spec.VCPU, r.VM.Spec.MemMiB
}

// TemplateMemory is the file with the memory of a template's guest, in the template's directory.
func TemplateMemory(dir string) string { return filepath.Join(dir, "memory") }

// Attach starts the machine.
func (m *Machine) Attach(ctx context.Context, r *capability.Run) error {
	if r.Template != nil {
		r.Report.Stage("restore machine")
	} else {
		r.Report.Stage("start machine")
	}
	if err := host.PrivateDir(r.RunDir); err != nil {
		return err
	}
	describe(&r.Spec, r)
	if r.Making {
		r.Spec.Memory = TemplateMemory(r.Dir)
	}
	machine, err := r.Driver.Start(ctx, r.Spec)
	if err != nil {
		return err
	}
	r.Machine = machine
	b, err := json.MarshalIndent(machine.Handle(), "", "\t")
	if err != nil {
		return err
	}
	return host.WriteFile(handleFile(r.Dir), b, 0o600)
}

// Detach kills the machine, in whichever daemon it was started, and removes its handle and run directory.
func (m *Machine) Detach(ctx context.Context, r *capability.Run) error {
	if r.Machine == nil {
		if err := m.adopt(ctx, r); err != nil && !errkind.Is(err, api.KindNotFound) {
			return err
		}
	}
	if r.Machine != nil {
		if err := r.Machine.Kill(ctx); err != nil {
			return err
		}
	}
	// A machine that died with its host or without a handle has left sockets.
	err := host.RemoveDir(r.RunDir)
	if err == nil {
		err = os.Remove(handleFile(r.Dir))
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove what the machine left: %w", err)
	}
	return nil
}

// adopt finds a machine that this daemon did not start: by its handle, or, where a crash came before the handle was
// written, by its run directory.
func (m *Machine) adopt(ctx context.Context, r *capability.Run) error {
	h, err := ReadHandle(r.Dir)
	if errkind.Is(err, api.KindNotFound) {
		h, err = m.find(ctx, r)
	}
	if err != nil {
		return err
	}
	d, ok := m.Drivers[h.Driver]
	if !ok {
		return errkind.New(api.KindUnavailable, "machine %d was started by the unknown driver %q", h.PID, h.Driver)
	}
	r.Machine, err = d.Adopt(ctx, h)
	return err
}

func (m *Machine) find(ctx context.Context, r *capability.Run) (vmm.Handle, error) {
	for _, d := range m.Drivers {
		f, ok := d.(vmm.Finder)
		if !ok {
			continue
		}
		h, err := f.Find(ctx, r.VM.ID, r.Dir, r.RunDir)
		if !errkind.Is(err, api.KindNotFound) {
			return h, err
		}
	}
	return vmm.Handle{}, errkind.New(api.KindNotFound, "no machine of vm %q", r.VM.Name)
}
