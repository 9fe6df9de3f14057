// Package doctor knows what to ask of a daemon that works and of the host under it: what a start of a VM asks beforehand, and
// what only shows in time: files that changed, leftovers, versions that do not fit, VMs in trouble. It owns no state; the
// questions go to the owners of things, and the answers are package preflight's.
//
// A check tests an end result, as a user would meet it. What is normal while VMs are made, run and go is no finding.
package doctor

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net"
	"os"
	"strings"

	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm"
	"golang.org/x/sys/unix"
)

// Store is the database.
type Store interface {
	Check(ctx context.Context) error
}

// Images lists images.
type Images interface {
	List(ctx context.Context) ([]banger.Image, error)
}

// Kernels lists kernels.
type Kernels interface {
	List(ctx context.Context) ([]banger.Kernel, error)
}

// VMs lists VMs and gives access to their guests.
type VMs interface {
	List(ctx context.Context) ([]banger.VM, error)
	Guest(ctx context.Context, ref string) (banger.VM, *guest.Conn, error)
}

// Leftovers finds what no record claims, of one kind.
type Leftovers func(ctx context.Context) ([]preflight.Problem, error)

// Config is what doctor asks.
type Config struct {
	Paths     config.Paths
	Version   string // of the daemon
	Agent     string // path of the agent's program
	Driver    vmm.Driver
	DriverWhy string                      // why that one
	Taps      bool                        // VMs have tap devices
	Default   vmm.Spec                    // of a VM that asks for nothing: its sizes
	Cloner    func() (disk.Choice, error) // chooses anew
	LowSpace  int64                       // free bytes in Paths.State below which doctor warns; zero: 2 GiB
	Resolver  *net.Resolver               // the host's
	// Network looks at the host's network for guests; nil: each VM has its VMM's own.
	Network func(ctx context.Context) (string, []preflight.Problem)
	// Templates looks at what VMs start warm from, and reads its files of at most limit bytes.
	Templates func(ctx context.Context, limit int64) (string, []preflight.Problem)
	Store     Store
	Images    Images
	Kernels   Kernels
	VMs       VMs
	Group     host.Cgroup // in which machines have groups of their own, named by the VM's id; may be empty
	Leftovers []Leftovers
}

// Doctor asks.
type Doctor struct{ cfg Config }

// New returns a doctor.
func New(cfg Config) *Doctor { return &Doctor{cfg} }

// Checks are the questions, in the order in which a start would meet them. With full, every file of images, kernels and
// templates is read.
func (d *Doctor) Checks(full bool) []preflight.Check {
	read, patience := int64(smallFile), preflight.DefaultLimit
	if full {
		read, patience = math.MaxInt64, fullLimit
	}
	return []preflight.Check{
		{Name: "host", Ask: d.host},
		{Name: "vmm", Ask: d.vmm},
		{Name: "kvm", Ask: d.kvm},
		preflight.Programs(),
		preflight.Directories(d.cfg.Paths),
		{Name: "disk-space", Ask: d.space},
		{Name: "cloner", Ask: d.cloner},
		{Name: "agent", Ask: d.agent},
		{Name: "network", Limit: 3 * lookUp, Ask: d.network},
		{Name: "kernel", Limit: patience, Ask: func(ctx context.Context) (string, []preflight.Problem) { return d.kernels(ctx, read) }},
		{Name: "image", Limit: patience, Ask: func(ctx context.Context) (string, []preflight.Problem) { return d.images(ctx, read) }},
		{Name: "templates", Limit: patience, Ask: func(ctx context.Context) (string, []preflight.Problem) { return d.cfg.Templates(ctx, read) }},
		{Name: "store", Ask: d.store},
		{Name: "leftovers", Ask: d.leftovers},
		{Name: "vms", Ask: d.vms},
	}
}

func (d *Doctor) host(context.Context) (string, []preflight.Problem) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return preflight.Failed(fmt.Errorf("uname: %w", err))
	}
	who := fmt.Sprintf("the ordinary user %d", os.Geteuid())
	if os.Geteuid() == 0 {
		who = "root"
	}
	return fmt.Sprintf("Linux %s on %s, as %s; %s", unix.ByteSliceToString(u.Release[:]), unix.ByteSliceToString(u.Machine[:]), who,
		limits(d.cfg.Group)), nil
}

// limits says what keeps machines from having all of the host.
func limits(group host.Cgroup) string {
	if group == "" {
		return "no control groups of version 2 to be used: nothing limits VMs"
	}
	if lacks := group.Lacks(); len(lacks) > 0 {
		return "control groups that do not limit VMs' " + strings.Join(lacks, ", ")
	}
	return "control groups that limit VMs to their sizes"
}

func (d *Doctor) vmm(ctx context.Context) (string, []preflight.Problem) {
	f := d.cfg.Driver.Features()
	found := append(d.cfg.Driver.Check(ctx, d.cfg.Default), f.NoNetwork(d.cfg.Taps)...)
	return f.Engine + ": " + d.cfg.DriverWhy, found
}

func (d *Doctor) kvm(context.Context) (string, []preflight.Problem) {
	f := d.cfg.Driver.Features()
	if f.AccelHint == "" {
		return f.AccelWhy, nil
	}
	return "", []preflight.Problem{{Detail: f.AccelWhy, Fix: f.AccelHint, Minor: true}}
}

func (d *Doctor) space(context.Context) (string, []preflight.Problem) {
	return preflight.Space(d.cfg.Paths.State, preflight.StartReserve, cmp.Or(d.cfg.LowSpace, 2<<30))
}

func (d *Doctor) cloner(context.Context) (string, []preflight.Problem) {
	c, err := d.cfg.Cloner()
	if err != nil {
		return preflight.Failed(err)
	}
	return c.Name + ": " + c.Why, nil
}

// agent asks the agent's program for its version: one of another build may speak another language than the daemon.
func (d *Doctor) agent(ctx context.Context) (string, []preflight.Problem) {
	out, err := host.Output(ctx, host.Command{Argv: []string{d.cfg.Agent, "version"}})
	if err != nil {
		return "", []preflight.Problem{{
			Detail: fmt.Sprintf("the guest agent %s cannot be executed: %v", d.cfg.Agent, err), Fix: "install banger-agent beside bangerd",
		}}
	}
	version := strings.TrimPrefix(strings.TrimSpace(string(out)), "banger-agent ")
	if version != d.cfg.Version {
		return "", []preflight.Problem{{
			Detail: fmt.Sprintf("the guest agent %s is of version %s, and the daemon of %s", d.cfg.Agent, version, d.cfg.Version),
			Fix:    "install banger, bangerd and banger-agent of one version, then `banger daemon stop`: the next command starts the new daemon, and VMs keep running",
			Minor:  true,
		}}
	}
	return d.cfg.Agent + ", of the daemon's version", nil
}

func (d *Doctor) store(ctx context.Context) (string, []preflight.Problem) {
	if err := d.cfg.Store.Check(ctx); err != nil {
		return preflight.Failed(fmt.Errorf("database %s: %w", d.cfg.Paths.DB(), err))
	}
	return "the database is whole", nil
}

func (d *Doctor) leftovers(ctx context.Context) (string, []preflight.Problem) {
	var all []preflight.Problem
	for _, ask := range append([]Leftovers{d.groups}, d.cfg.Leftovers...) {
		found, err := ask(ctx)
		if err != nil {
			_, failed := preflight.Failed(fmt.Errorf("look for leftovers: %w", err))
			found = append(found, failed...)
		}
		all = append(all, found...)
	}
	return "none", all
}

// groups finds empty control groups of VMs that do not run. One that is starting may have an empty one.
func (d *Doctor) groups(ctx context.Context) ([]preflight.Problem, error) {
	empty, err := d.cfg.Group.Empty()
	if err != nil || len(empty) == 0 {
		return nil, err
	}
	vms, err := d.cfg.VMs.List(ctx)
	if err != nil {
		return nil, err
	}
	live := map[string]bool{}
	for _, vm := range vms {
		live[string(vm.ID)] = vm.State.Live()
	}
	var found []preflight.Problem
	for _, id := range empty {
		group := d.cfg.Group.Child(id)
		if _, err := os.Stat(string(group)); err != nil || live[id] {
			continue // a start that has failed since removed it
		}
		found = append(found, preflight.Problem{
			Detail: fmt.Sprintf("the control group %s is empty, and no VM with its id runs", group), Minor: true,
			Fix:  "remove it: `banger doctor --fix`",
			Mend: func(context.Context) (string, error) { return "removed", group.Remove() },
		})
	}
	return found, nil
}

func (d *Doctor) vms(ctx context.Context) (string, []preflight.Problem) {
	vms, err := d.cfg.VMs.List(ctx)
	if err != nil {
		return preflight.Failed(err)
	}
	var found []preflight.Problem
	add := func(fix, format string, args ...any) {
		found = append(found, preflight.Problem{Detail: fmt.Sprintf(format, args...), Fix: fix, Minor: true})
	}
	running := 0
	for _, vm := range vms {
		if vm.State == banger.Failed {
			add(fmt.Sprintf("see `banger vm logs %s`; start it again with `banger vm start %s`", vm.Name, vm.Name),
				"vm %q has failed: %s", vm.Name, vm.LastError)
		}
		if !vm.State.Live() {
			continue
		}
		running++
		for _, c := range vm.Conditions {
			add(fmt.Sprintf("see `banger vm logs %s`; stop and start it", vm.Name), "vm %q runs, but: %s: %s", vm.Name, c.Type, c.Message)
		}
	}
	return fmt.Sprintf("%d, of which %d run", len(vms), running), found
}
