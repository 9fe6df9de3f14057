package rpcserver

import (
	"cmp"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/vm"
)

// vmOut is a VM as the wire has it: the record, and what is known of its run.
func vmOut(s *vm.Service, v banger.VM) api.VM {
	out := api.VM{
		ID: string(v.ID), Name: v.Name, State: v.State.String(),
		Image: v.Spec.Image, ImageID: string(v.Spec.ImageID), Kernel: v.Spec.Kernel, KernelID: string(v.Spec.KernelID),
		VMM: v.Spec.VMM, Init: string(v.Spec.Init), VCPU: v.Spec.VCPU, MemMiB: v.Spec.MemMiB,
		RootSize: v.Spec.RootSize, DiskSize: v.Spec.WorkSize, NAT: v.Spec.NAT, Env: v.Spec.Env, MAC: v.Spec.MAC,
		Group:      v.Spec.Group,
		AutoStopMS: s.AutoStop(v).Milliseconds(),
		LastError:  v.LastError, Created: v.Created, Started: v.Started, Stopped: v.Stopped, LastUsed: v.LastUsed, StartWhy: v.Start.Why,
	}
	if !v.Started.IsZero() {
		if out.Start = "cold"; v.Start.Warm {
			out.Start = "warm"
		}
	}
	for _, p := range v.Spec.Publish {
		out.Publish = append(out.Publish, p.String())
	}
	if v.Address.IsValid() {
		out.Address = v.Address.String()
	}
	for _, c := range s.Conditions(v) {
		out.Conditions = append(out.Conditions, api.Condition(c))
	}
	if v.Workspace != nil {
		ws := workspaceOut(*v.Workspace)
		out.Workspace = &ws
	}
	if r := s.Run(v.ID); r != nil && r.Machine != nil {
		h := r.Machine.Handle()
		out.PID, out.Engine, out.BootID = h.PID, h.Engine, r.Hello.BootID
	}
	return out
}

// portsOut adds to what listens in a guest where the host reaches it: by a published port, or, in mode bridge, by the VM's name.
func portsOut(v banger.VM, found []guestapi.Port) api.VMPorts {
	out := api.VMPorts{Ports: make([]api.VMPort, 0, len(found))}
	for _, port := range found {
		p := api.VMPort{Network: port.Network, Address: port.Address, Port: port.Port, PID: port.PID, Process: port.Process}
		tcp := strings.HasPrefix(port.Network, "tcp")
		at, err := netip.ParseAddr(port.Address) // a guest's word
		if tcp && v.Address.IsValid() && err == nil && !at.IsLoopback() {
			p.URL = fmt.Sprintf("http://%s.vm:%d", v.Name, port.Port)
		}
		for _, pub := range v.Spec.Publish {
			if tcp && int(pub.Guest) == port.Port {
				p.Published = append(p.Published, pub.Host.String())
				p.URL = cmp.Or(p.URL, "http://"+pub.Host.String())
			}
		}
		out.Ports = append(out.Ports, p)
	}
	return out
}

func workspaceOut(w banger.Workspace) api.Workspace {
	return api.Workspace{
		GuestPath: w.GuestPath, Source: w.Source, Branch: w.Branch, BaseCommit: w.BaseCommit, BaseTree: w.BaseTree,
		Prepared: w.Prepared, ExportedTree: w.ExportedTree, Exported: w.Exported, Changes: string(w.Changes),
	}
}

// workspaceIn takes what a client may say of a workspace; the rest is the daemon's to fill in.
func workspaceIn(w api.Workspace) banger.Workspace {
	return banger.Workspace{
		GuestPath: w.GuestPath, Source: w.Source, Branch: w.Branch, BaseCommit: w.BaseCommit, BaseTree: w.BaseTree,
	}
}

func imageOut(img banger.Image, users []string) api.Image {
	return api.Image{
		ID: string(img.ID), Name: img.Name, Managed: img.Managed, Kernel: img.Kernel, Init: string(img.Init),
		Source: img.Source, Digest: img.Digest, RootSize: img.RootSize, WorkSize: img.WorkSize,
		Allocated: allocated(img.Rootfs, img.WorkSeed), Packages: img.Packages, Created: img.Created, VMs: users,
		Dir: filepath.Dir(img.Rootfs), Run: imageRunOut(img.Run),
	}
}

func imageRunOut(r *banger.Run) *api.ImageRun {
	if r == nil {
		return nil
	}
	out := api.ImageRun(*r)
	return &out
}

func kernelOut(k banger.Kernel, users []string) api.Kernel {
	return api.Kernel{
		ID: string(k.ID), Name: k.Name, Release: k.Release, Arch: k.Arch, Source: k.Source, Format: k.Format,
		Allocated: allocated(k.Image, k.Modules), Facts: k.Facts, Created: k.Created, Images: users, Dir: filepath.Dir(k.Image),
	}
}

// allocated adds up what files take on disk; one that is missing counts nothing.
func allocated(paths ...string) int64 {
	var sum int64
	for _, p := range paths {
		if p == "" {
			continue
		}
		if n, err := host.Allocated(p); err == nil {
			sum += n
		}
	}
	return sum
}
