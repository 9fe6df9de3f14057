// Package capabilities has what a VM is made of at start, each as one capability of the chain: disks, nic, nat, dns,
// auth, boot, machine, agent, ports, in this order. What each owns:
//
//   - disks: the VM's root and work disk (files root.* and work.* in its directory) and the kernel's module tree
//   - nic: the network interface (in mode bridge a tap)
//   - nat, dns: what the guest may reach, and its name, in mode bridge only
//   - auth: who may log in (file known_hosts)
//   - boot: kernel, initramfs (file initrd) and command line
//   - machine: the VMM process (file machine.json, the run directory)
//   - agent: the control channel
//   - ports: ports of the guest that the host listens for
package capabilities

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vmm"
)

// Disks gives a VM its root disk (vda), its work disk (vdb, mounted at /root) and its kernel's modules (vdc).
type Disks struct {
	Cloners map[string]disk.Cloner
	// Fresh makes an empty ext4 of size bytes at path, for images without a work-seed.
	Fresh func(ctx context.Context, path string, size int64) error
}

// Name implements capability.Capability.
func (*Disks) Name() string { return "disks" }

// Checks asks for the disks that the VM has, for what those that it lacks are made of, and for room.
func (d *Disks) Checks(r *capability.Run) []preflight.Check {
	return []preflight.Check{
		{Name: "image", Ask: func(context.Context) (string, []preflight.Problem) { return r.Image.Name, preflight.Image(r.Image) }},
		{Name: "disks", Ask: func(context.Context) (string, []preflight.Problem) { return r.VM.Spec.Cloner, d.lost(r) }},
		{Name: "disk-space", Ask: func(context.Context) (string, []preflight.Problem) {
			need := int64(preflight.StartReserve)
			for _, v := range volumes(r) {
				if !exists(v.Path) {
					need += disk.Needs(r.VM.Spec.Cloner, v)
				}
			}
			return preflight.Space(filepath.Dir(r.Dir), need, need)
		}},
	}
}

// lost tells whether the VM's cloner is here, and which of its disks a VM that has run lacks. Those are data loss: a start does
// not silently make new ones.
func (d *Disks) lost(r *capability.Run) []preflight.Problem {
	var found []preflight.Problem
	if _, err := d.cloner(r.VM); err != nil {
		found = append(found, preflight.Problem{Detail: err.Error(), Fix: errkind.Hint(err)})
	}
	for _, v := range volumes(r) {
		if !r.VM.Started.IsZero() && !exists(v.Path) {
			found = append(found, preflight.Problem{
				Detail: fmt.Sprintf("the disk %s.* is gone", v.Path),
				Fix:    fmt.Sprintf("restore the file, or delete the VM: `banger vm delete --force %s`", r.VM.Name),
				Kind:   api.KindDataLoss,
			})
		}
	}
	return found
}

// Attach clones what is not cloned yet and activates the clones.
func (d *Disks) Attach(ctx context.Context, r *capability.Run) error {
	r.Report.Stage("clone disks")
	cloner, err := d.cloner(r.VM)
	if err != nil {
		return err
	}
	if r.VM.Started.IsZero() {
		if err := d.begin(ctx, cloner, r); err != nil {
			return err
		}
	}
	volumes := volumes(r)
	if work := &volumes[1]; work.Base == "" {
		if work.Base, err = d.seed(ctx, r); err != nil {
			return err
		}
	}
	for _, v := range volumes {
		if err := cloner.Create(ctx, v); err != nil {
			return err
		}
		a, err := cloner.Activate(ctx, v)
		if err != nil {
			return err
		}
		r.Spec.Disks = append(r.Spec.Disks, vmm.Disk{Path: a.Path, Format: a.Format})
	}
	r.Boot.Root = guestapi.Mount{Device: "/dev/vda", Type: "ext4", Grow: true}
	r.Boot.Mounts = []guestapi.Mount{{Device: "/dev/vdb", Target: "/root", Type: "ext4", Grow: true}}
	if k := r.Kernel; k.Modules != "" {
		r.Spec.Disks = append(r.Spec.Disks, vmm.Disk{Path: k.Modules, Format: "raw", ReadOnly: true})
		r.Boot.Mounts = append(r.Boot.Mounts, guestapi.Mount{
			Device: "/dev/vdc", Target: "/lib/modules/" + k.Release, Type: k.ModulesType, ReadOnly: true, Optional: true,
		})
	}
	return nil
}

// begin makes way for the disks of a VM that was never started, and clones them from the template's, if there is one. What an earlier
// try has left of them goes: it may be another base's, a guest may have begun to write to it, and nothing is in it yet.
func (d *Disks) begin(ctx context.Context, cloner disk.Cloner, r *capability.Run) error {
	for i, v := range volumes(r) {
		if err := cloner.Remove(ctx, v); err != nil {
			return err
		}
		if err := os.Remove(templateDisk(v)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if r.Template == nil {
			continue
		}
		base := r.Template.Disks[i]
		if filepath.Ext(base) == qcow2 {
			// The clone needs its base for as long as it lives. With a link of its own it does not need the template.
			if err := os.Link(base, templateDisk(v)); err != nil {
				return err
			}
			continue
		}
		v.Base = base
		if err := cloner.Create(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

const qcow2 = ".qcow2"

// templateDisk is the file that a disk of a VM is a clone of, where that is not the image's.
func templateDisk(v disk.Volume) string { return v.Path + "-template" + qcow2 }

// Detach deactivates the clones; they stay.
func (d *Disks) Detach(ctx context.Context, r *capability.Run) error {
	return d.each(r, func(c disk.Cloner, v disk.Volume) error { return c.Deactivate(ctx, v) })
}

// Destroy removes the clones.
func (d *Disks) Destroy(ctx context.Context, r *capability.Run) error {
	return d.each(r, func(c disk.Cloner, v disk.Volume) error { return c.Remove(ctx, v) })
}

// Inspect implements capability.Inspector: it tells of disks that are lost, or soon will be.
func (d *Disks) Inspect(ctx context.Context, r *capability.Run) error {
	return d.each(r, func(c disk.Cloner, v disk.Volume) error {
		if q, ok := c.(disk.Inspector); ok {
			return q.Inspect(ctx, v)
		}
		return nil
	})
}

func (d *Disks) each(r *capability.Run, fn func(disk.Cloner, disk.Volume) error) error {
	cloners := d.Cloners // an unknown VM's leftovers may be any one's
	if r.VM.Spec.Cloner != "" {
		cloner, err := d.cloner(r.VM)
		if err != nil {
			return err
		}
		cloners = map[string]disk.Cloner{cloner.Name(): cloner}
	}
	var errs []error
	for _, c := range cloners {
		for _, v := range volumes(r) {
			errs = append(errs, fn(c, v))
		}
	}
	return errors.Join(errs...)
}

func (d *Disks) cloner(vm banger.VM) (disk.Cloner, error) {
	if c, ok := d.Cloners[vm.Spec.Cloner]; ok {
		return c, nil
	}
	return nil, errkind.WithHint(
		errkind.New(api.KindUnavailable, "disk cloner %q of vm %q is not available here", vm.Spec.Cloner, vm.Name),
		"use the banger with which the VM was made, or delete it: `banger vm delete --force %s`", vm.Name)
}

// volumes are the root disk and the work disk.
func volumes(r *capability.Run) []disk.Volume {
	all := []disk.Volume{
		{Base: r.Image.Rootfs, Path: filepath.Join(r.Dir, "root"), Size: r.VM.Spec.RootSize},
		{Base: r.Image.WorkSeed, Path: filepath.Join(r.Dir, "work"), Size: r.VM.Spec.WorkSize},
	}
	for i := range all {
		if base := templateDisk(all[i]); isFile(base) {
			all[i].Base, all[i].BaseFormat = base, disk.QCOW2
		}
	}
	return all
}

func isFile(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// freshWorkSize is the work disk's size when neither request, configuration nor image say one.
const freshWorkSize = 8 << 30

// seed makes the VM a work-seed of its own, for an image that has none.
func (d *Disks) seed(ctx context.Context, r *capability.Run) (string, error) {
	path := filepath.Join(r.Dir, "seed.ext4")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	size := r.VM.Spec.WorkSize
	if size == 0 {
		size = freshWorkSize
	}
	if err := d.Fresh(ctx, path, size); err != nil {
		return "", fmt.Errorf("make a work disk: %w", err)
	}
	return path, nil
}

func exists(volume string) bool { return len(files(volume)) > 0 }

// files returns the files of the clone at volume; a clone that was never made has none.
func files(volume string) []string {
	m, err := filepath.Glob(volume + ".*")
	if err != nil {
		return nil // a pattern is never malformed: ids are hex
	}
	return m
}

// Measure implements capability.Measurer.
func (d *Disks) Measure(r *capability.Run, u *capability.Usage) error {
	disks := volumes(r)
	var errs []error
	for _, v := range []struct {
		sum   *int64
		files []string
	}{{&u.Root, files(disks[0].Path)}, {&u.Work, append(files(disks[1].Path), files(filepath.Join(r.Dir, "seed"))...)}} {
		for _, f := range v.files {
			n, err := host.Allocated(f)
			*v.sum += n
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
