// Package firecracker runs VMs with Firecracker: our own few typed calls of its API, see [client], on programs and files of package
// fcproc. It needs hardware virtualization and, for a network, a tap.
//
// A machine is one firecracker process, see package vmmproc, which may be jailed, see fcproc.Cell. What it leaves in the VM's
// directories: console.log, which is the process's standard output and so needs no path in a jail, vmm.log, the directory jail of a
// jailed one, and in the run directory api.sock and agent.sock, the way to the guest's vsock. Firecracker removes neither socket.
//
// A Firecracker guest cannot power off. The agent restarts it instead, which ends the process, and the kernel says on the console
// what was meant; an image's own init makes the kernel halt, which ends nothing: [machine.watch] sees that on the console and
// kills the process. A guest that halts while no daemon runs is ended by the next one.
package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/firecracker/fcproc"
	"github.com/banger-vm/banger/internal/vmm/vmmproc"
)

// Name is the driver's name.
const Name = "firecracker"

// minMemMiB is the smallest memory with which Debian's cloud kernel reaches its root.
const minMemMiB = 80

// maxVCPU is how many processors Firecracker gives a guest at most (MAX_SUPPORTED_VCPUS).
const maxVCPU = 32

// Config is what a driver is made of.
type Config struct {
	Programs fcproc.Config
	// KVM says why KVM runs no guests on this host, with a hint; nil: it does. It is asked once.
	KVM   func(ctx context.Context) error
	Group host.Cgroup // machines get groups of their own in it; empty: they stay in the caller's
	Log   *slog.Logger
}

// Driver starts machines with Firecracker.
type Driver struct {
	log      *slog.Logger
	tools    fcproc.Tools
	accelWhy string
	defects  []preflight.Problem // why no machine can be started at all
	home     *vmmproc.Home
	// serveWithin is the constant, but for tests.
	serveWithin time.Duration
}

// New finds Firecracker and the facts about this host. What keeps machines from starting is not an error here: Check reports it.
func New(ctx context.Context, cfg Config) *Driver {
	d := &Driver{
		log: cfg.Log, accelWhy: "hardware virtualization by KVM", home: vmmproc.NewHome(Name, cfg.Group, cfg.Log), serveWithin: serveWithin,
	}
	d.tools, d.defects = fcproc.Find(ctx, cfg.Programs)
	if len(d.defects) > 0 {
		return d // whether KVM works is found out only where it matters: it may take a guest
	}
	if err := cfg.KVM(ctx); err != nil {
		d.accelWhy = fmt.Sprintf("Firecracker needs KVM, but %v", err)
		d.defects = append(d.defects, preflight.Problem{Detail: d.accelWhy, Fix: errkind.Hint(err) + "; or use QEMU, which can do without"})
	}
	return d
}

// Name implements vmm.Driver.
func (d *Driver) Name() string { return Name }

// Features implements vmm.Driver.
func (d *Driver) Features() vmm.Features {
	how := "kvm"
	if d.tools.Jailer != "" {
		how += ", jailed"
	}
	return vmm.Features{
		Accel: vmm.AccelKVM, AccelWhy: d.accelWhy, Engine: fmt.Sprintf("firecracker %s (%s)", d.tools.Version, how),
		Formats: []string{"raw"}, Tap: true, MinMemMiB: minMemMiB, Unfit: d.defects,
	}
}

// Check implements vmm.Driver.
func (d *Driver) Check(_ context.Context, s vmm.Spec) []preflight.Problem {
	found := slices.Clone(d.defects)
	add := func(fix, format string, args ...any) {
		found = append(found, preflight.Problem{Detail: fmt.Sprintf(format, args...), Fix: fix})
	}
	if s.MemMiB < minMemMiB {
		add(fmt.Sprintf("give it at least %d MiB", minMemMiB), "%d MiB of memory is too little", s.MemMiB)
	}
	if n := min(runtime.NumCPU(), maxVCPU); s.VCPU < 1 || s.VCPU > n {
		add(fmt.Sprintf("ask for 1 to %d", n), "%d vCPUs, of %d that this host can give", s.VCPU, n)
	}
	if path := fcproc.AgentSocket(s.RunDir); len(path) > vmmproc.MaxSocketPath {
		add("set BANGER_ROOT to a shorter directory", "the socket path %s is longer than %d bytes", path, vmmproc.MaxSocketPath)
	}
	files := []string{s.Kernel, s.Initrd}
	for _, disk := range s.Disks {
		files = append(files, disk.Path)
		if disk.Format != "raw" {
			add("create the VM anew for Firecracker, or start it with --vmm qemu", "Firecracker opens raw disks, and %s is %s", disk.Path, disk.Format)
		}
	}
	for _, path := range files {
		if path == "" {
			continue // asked before it is known
		}
		if _, err := os.Stat(path); err != nil {
			add("restore the file, or delete the VM", "%v", err)
		}
	}
	if compressed(s.Kernel) {
		add("import a kernel that has an ELF image (CONFIG_PVH=y), or use QEMU", "Firecracker starts ELF kernels, and %s is none", s.Kernel)
	}
	if problem := checkNIC(s.NIC); problem != nil {
		found = append(found, *problem)
	}
	return found
}

// compressed reports whether there is a kernel at path that is no ELF file.
func compressed(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	magic := make([]byte, 4)
	_, err = io.ReadFull(f, magic)
	var other *os.PathError // a directory: doctor's question has no kernel
	return !errors.As(err, &other) && string(magic) != "\x7fELF"
}

// checkNIC refuses what Firecracker could not give a guest. A tap that is missing it would make, and nothing would be behind it.
func checkNIC(nic *vmm.NIC) *preflight.Problem {
	switch {
	case nic == nil:
		return nil
	case nic.Tap == "":
		return &preflight.Problem{Detail: "Firecracker has no user-mode network", Fix: "set network.mode to bridge, or use QEMU: --vmm qemu"}
	}
	if _, err := os.Stat(filepath.Join("/sys/class/net", nic.Tap)); err != nil {
		return &preflight.Problem{Detail: fmt.Sprintf("there is no tap device %q", nic.Tap), Fix: "start the VM again, which makes it"}
	}
	return nil
}

func kernelArgs(s vmm.Spec) string {
	facts := vmm.BootFacts{Accel: vmm.AccelKVM, Console: "ttyS0", ResetByKeyboard: true, NoPCI: true}
	return strings.TrimSpace(vmm.BootArgs(facts) + " " + s.Args)
}
