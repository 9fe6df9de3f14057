// Package qemu runs VMs with QEMU's microvm machine: PVH boot, virtio-mmio devices, no firmware to speak of. It needs no
// hardware virtualization (TCG) and no privilege (user-mode network).
//
// A machine is one qemu process in a session of its own. What it leaves in the VM's directories: console.log (bounded: see
// rotate), vmm.log, and in the run directory agent.sock, the control channel, and qemu.pid, which QEMU itself removes when it
// ends in good order; so a pid file that is left tells a crash from a clean end even to a daemon that is not the parent.
package qemu

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/vmm"
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
	KVM    bool   // /dev/kvm was found to run guests
	Log    *slog.Logger
}

// Driver starts machines with QEMU.
type Driver struct {
	cfg     Config
	binary  string // absolute; empty when QEMU is not installed
	version string
	tscKHz  int
}

// New finds QEMU and the facts about this host. A QEMU that is missing or too old is not an error here: Check reports it.
func New(ctx context.Context, cfg Config) *Driver {
	if cfg.Binary == "" {
		cfg.Binary = "qemu-system-x86_64"
	}
	d := &Driver{cfg: cfg, tscKHz: tscKHz()}
	path, err := host.LookPath(cfg.Binary)
	if err != nil {
		return d
	}
	out, err := host.Output(ctx, host.Command{Argv: []string{path, "--version"}})
	if err != nil {
		cfg.Log.Warn("qemu version", "binary", path, "err", err)
		return d
	}
	d.binary = path
	if m := versionLine.FindSubmatch(out); m != nil {
		d.version = string(m[1])
	}
	return d
}

var versionLine = regexp.MustCompile(`version (\d+\.\d+(?:\.\d+)?)`)

// Name implements vmm.Driver.
func (d *Driver) Name() string { return Name }

func (d *Driver) accel() string {
	if d.cfg.KVM {
		return vmm.AccelKVM
	}
	return vmm.AccelTCG
}

// machine is QEMU's machine type. Under TCG a microvm has no timer by which the kernel could find the TSC's rate, and hangs
// in half of all boots unless it is told; where we do not know the rate either, q35 is slower and safe.
func (d *Driver) machine() string {
	if d.tscKHz == 0 && !d.cfg.KVM {
		return "q35"
	}
	return "microvm"
}

// Features implements vmm.Driver.
func (d *Driver) Features() vmm.Features {
	return vmm.Features{
		Accel: d.accel(), Engine: fmt.Sprintf("qemu %s (%s, %s)", d.version, d.machine(), d.accel()),
		Formats: []string{"raw", "qcow2"}, UserNet: true, MinMemMiB: minMemMiB,
	}
}

// maxSocketPath is the longest path that fits a Unix socket address (unix(7)).
const maxSocketPath = 107

// Check implements vmm.Driver.
func (d *Driver) Check(_ context.Context, s vmm.Spec) []vmm.Problem {
	var found []vmm.Problem
	add := func(fix, format string, args ...any) {
		found = append(found, vmm.Problem{Detail: fmt.Sprintf(format, args...), Fix: fix})
	}
	if d.binary == "" {
		add("install QEMU (on Debian: qemu-system-x86), or name it in qemu_bin", "QEMU is not installed: %q", d.cfg.Binary)
	} else if major, err := strconv.Atoi(majorOf(d.version)); err != nil || major < minMajor {
		add(fmt.Sprintf("install QEMU %d or newer", minMajor), "QEMU %q is too old", d.version)
	}
	if s.MemMiB < minMemMiB {
		add(fmt.Sprintf("give it at least %d MiB", minMemMiB), "%d MiB of memory is too little", s.MemMiB)
	}
	if n := runtime.NumCPU(); s.VCPU < 1 || s.VCPU > n {
		add(fmt.Sprintf("ask for 1 to %d", n), "%d vCPUs on a host with %d", s.VCPU, n)
	}
	if path := agentSocket(s.RunDir); len(path) > maxSocketPath {
		add("set BANGER_ROOT to a shorter directory", "the socket path %s is longer than %d bytes", path, maxSocketPath)
	}
	files := []string{s.Kernel, s.Initrd}
	for _, disk := range s.Disks {
		files = append(files, disk.Path)
	}
	for _, path := range files {
		if _, err := os.Stat(path); err != nil {
			add("restore the file, or delete the VM", "%v", err)
		}
	}
	return found
}

func majorOf(version string) string {
	for i, c := range version {
		if c == '.' {
			return version[:i]
		}
	}
	return version
}

func agentSocket(runDir string) string { return filepath.Join(runDir, "agent.sock") }
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

func notRunning(h vmm.Handle) error {
	return errkind.New(api.KindNotFound, "machine %d of vm %s has ended", h.PID, h.ID)
}
