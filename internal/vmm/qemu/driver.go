// Package qemu runs VMs with QEMU's microvm machine: PVH boot, virtio-mmio devices, no firmware to speak of. It needs no
// hardware virtualization (TCG) and no privilege (user-mode network).
//
// A machine is one qemu process, see package vmmproc. What it leaves in the VM's directories: console.log and vmm.log, and in the
// run directory agent.sock, the control channel, qmp.sock, by which QEMU tells how the guest ended, and qemu.pid. QEMU removes the
// pid file when it ends in good order; so one that is left tells a crash to a daemon that heard nothing.
//
// A machine does not need its QMP connection: it is made when the machine starts or is adopted, one goroutine listens on it,
// and when it is lost the verdict on the end rests on other evidence, see [evidence].
package qemu

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/vmmproc"
)

// Name is the driver's name.
const Name = "qemu"

// minMemMiB is the smallest memory with which Debian's cloud kernel reaches its root.
const minMemMiB = 80

// minMajor is the oldest QEMU whose microvm machine has ACPI and PVH boot as we use them.
const minMajor = 7

// Config is what a driver is made of.
type Config struct {
	Binary string // path or name on PATH; empty: qemu-system-x86_64
	// Accel is what the user wants: AccelKVM and AccelTCG insist; anything else is KVM where it runs guests, and TCG elsewhere.
	Accel string
	// KVM says why KVM runs no guests on this host, with a hint; nil: it does. It is asked once, and not when TCG is insisted on.
	KVM   func(ctx context.Context) error
	Group host.Cgroup // machines get groups of their own in it; empty: they stay in the caller's
	Log   *slog.Logger
}

// Driver starts machines with QEMU.
type Driver struct {
	cfg     Config
	binary  string // absolute; empty when QEMU is not installed
	version string
	tscKHz  int
	accel   accel
	defects []preflight.Problem // why no machine can be started at all
	home    *vmmproc.Home
	// serveWithin is the constant, but for tests.
	serveWithin time.Duration
}

// New finds QEMU and the facts about this host. What keeps machines from starting is not an error here: Check reports it.
func New(ctx context.Context, cfg Config) *Driver {
	if cfg.Binary == "" {
		cfg.Binary = "qemu-system-x86_64"
	}
	d := &Driver{cfg: cfg, tscKHz: tscKHz(), home: vmmproc.NewHome(Name, cfg.Group, cfg.Log), serveWithin: serveWithin}
	d.findBinary(ctx)
	d.accel = chooseAccel(ctx, cfg)
	if d.accel.defect != nil {
		d.defects = append(d.defects, *d.accel.defect)
	}
	return d
}

// lookAgain ends a fix that takes effect in the next daemon.
const lookAgain = "; then `banger daemon stop`, and the next command starts a daemon that looks again"

func (d *Driver) findBinary(ctx context.Context) {
	refuse := func(fix, format string, args ...any) {
		d.defects = append(d.defects, preflight.Problem{Detail: fmt.Sprintf(format, args...), Fix: fix + lookAgain})
	}
	path, err := host.LookPath(d.cfg.Binary)
	if err != nil {
		refuse("install QEMU (on Debian: qemu-system-x86), or name it in the configuration's qemu_bin",
			"QEMU is not installed: no program %q", d.cfg.Binary)
		return
	}
	d.binary = path
	out, err := host.Output(ctx, host.Command{Argv: []string{path, "--version"}})
	if err != nil {
		refuse("see what it says, or name another QEMU in the configuration's qemu_bin", "QEMU does not tell its version: %v", err)
		return
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		refuse("name QEMU in the configuration's qemu_bin", "%s is not QEMU: it does not tell QEMU's version", path)
		return
	}
	d.version = string(m[1])
	if major, err := strconv.Atoi(string(m[2])); err != nil || major < minMajor {
		refuse(fmt.Sprintf("install QEMU %d or newer, or name one in the configuration's qemu_bin", minMajor),
			"QEMU %s at %s is too old", d.version, path)
	}
}

var versionLine = regexp.MustCompile(`QEMU emulator version ((\d+)\.\d+(?:\.\d+)?)`)

// accel is the accelerator that was chosen.
type accel struct {
	name   string // AccelKVM or AccelTCG
	why    string
	hint   string             // what to do about it; empty: nothing is amiss
	defect *preflight.Problem // why it cannot be had
}

func chooseAccel(ctx context.Context, cfg Config) accel {
	if cfg.Accel == vmm.AccelTCG {
		return accel{name: vmm.AccelTCG, why: "emulation, as the configuration asks: qemu_accel is tcg"}
	}
	err := cfg.KVM(ctx)
	switch {
	case err == nil:
		return accel{name: vmm.AccelKVM, why: "hardware virtualization by KVM"}
	case cfg.Accel == vmm.AccelKVM:
		why := fmt.Sprintf("the configuration insists on KVM (qemu_accel is kvm), but %v", err)
		fix := errkind.Hint(err) + "; or set qemu_accel to auto" + lookAgain
		return accel{name: vmm.AccelKVM, why: why, hint: fix, defect: &preflight.Problem{Detail: why, Fix: fix}}
	}
	return accel{name: vmm.AccelTCG, why: fmt.Sprintf("emulation, because %v", err),
		hint: "VMs run all the same, several times slower; to make them fast, " + errkind.Hint(err)}
}

// Name implements vmm.Driver.
func (d *Driver) Name() string { return Name }

// machine is QEMU's machine type. Under TCG a microvm has no timer by which the kernel could find the TSC's rate, and hangs
// in half of all boots unless it is told; where we do not know the rate either, q35 is slower and safe.
func (d *Driver) machine() string {
	if d.tscKHz == 0 && d.accel.name == vmm.AccelTCG {
		return "q35"
	}
	return "microvm"
}

// Features implements vmm.Driver.
func (d *Driver) Features() vmm.Features {
	return vmm.Features{
		Accel: d.accel.name, AccelWhy: d.accel.why, AccelHint: d.accel.hint,
		Engine:  fmt.Sprintf("qemu %s (%s, %s)", d.version, d.machine(), d.accel.name),
		Formats: []string{"raw", "qcow2"}, UserNet: true, PCI: d.machine() != "microvm", MinMemMiB: minMemMiB, Pause: true, Snapshot: true, Unfit: d.defects,
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
	if n := runtime.NumCPU(); s.VCPU < 1 || s.VCPU > n {
		add(fmt.Sprintf("ask for 1 to %d", n), "%d vCPUs on a host with %d", s.VCPU, n)
	}
	if path := agentSocket(s.RunDir); len(path) > vmmproc.MaxSocketPath {
		add("set BANGER_ROOT to a shorter directory", "the socket path %s is longer than %d bytes", path, vmmproc.MaxSocketPath)
	}
	files := []string{s.Kernel, s.Initrd}
	if s.Restore != nil {
		files = []string{s.Restore.Memory, s.Restore.State}
	}
	for _, disk := range s.Disks {
		files = append(files, disk.Path)
	}
	for _, path := range files {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			add("restore the file, or delete the VM", "%v", err)
		}
	}
	return found
}

func agentSocket(runDir string) string { return filepath.Join(runDir, "agent.sock") }
func qmpSocket(runDir string) string   { return filepath.Join(runDir, "qmp.sock") }
func pidFile(runDir string) string     { return filepath.Join(runDir, "qemu.pid") }

var bogomips = regexp.MustCompile(`(?m)^bogomips\s*:\s*([0-9.]+)`)
var constantTSC = regexp.MustCompile(`(?m)^flags\s*:.*\bconstant_tsc\b`)

// tscKHz returns the rate of the host's time stamp counter, which under TCG is the guest's: bogomips is twice the rate in
// MHz where the counter's rate is constant. 0: not known.
func tscKHz() int {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || !constantTSC.Match(b) {
		return 0
	}
	m := bogomips.FindSubmatch(b)
	if m == nil {
		return 0
	}
	rate, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		return 0
	}
	return int(rate / 2 * 1000)
}
