package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// KVM tells whether KVM runs guests on this host. A device that opens proves little: a software variant, without the
// processor's help, answers every ioctl, and ordinary kernels hang on it. So KVM is believed when the device opens, the
// processor has the extensions, and a tiny guest has booted within a deadline, where there is QEMU to boot it.
type KVM struct {
	Dir  string // where the outcome of the tiny guest is remembered until the host boots again; exists
	QEMU string // the program that boots it, a path or a name on PATH

	// What tests replace.
	device, cpuinfo, bootID string
	boot                    func(ctx context.Context, qemu string) error
	deadline                time.Duration
}

// kvmDeadline is a hundred times what the tiny guest takes, and what QEMU takes to start on a host that is very busy.
const kvmDeadline = 10 * time.Second

// kvmVerdict is the file in which the tiny guest's outcome is remembered. Device and processor are looked at each time,
// since a user may be given the device at any time.
type kvmVerdict struct {
	BootID string `json:"boot_id"` // /proc/sys/kernel/random/boot_id
	QEMU   string `json:"qemu"`
	Reason string `json:"reason"` // why the guest did not boot; empty: it did
}

// Usable returns nil where KVM runs guests, else why it does not, for people and with a hint.
func (k KVM) Usable(ctx context.Context) error {
	k = k.withDefaults()
	dev, err := os.OpenFile(k.device, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errkind.WithHint(errkind.New(api.KindUnavailable, "there is no %s", k.device),
			"load the kernel module kvm_intel or kvm_amd, and see that virtualization is on in the firmware or, in a VM, that it is nested")
	case errors.Is(err, os.ErrPermission):
		return errkind.WithHint(errkind.New(api.KindPermission, "%s may not be opened", k.device),
			"add your user to the group of the device: `sudo usermod -aG kvm $USER`, then log in again")
	case err != nil:
		return errkind.WithHint(errkind.New(api.KindUnavailable, "%w", err), "see the kernel's log for kvm")
	}
	dev.Close()
	if err := k.processor(); err != nil {
		return err
	}
	return k.guest(ctx)
}

func (k KVM) withDefaults() KVM {
	if k.device == "" {
		k.device = "/dev/kvm"
	}
	if k.cpuinfo == "" {
		k.cpuinfo = "/proc/cpuinfo"
	}
	if k.bootID == "" {
		k.bootID = "/proc/sys/kernel/random/boot_id"
	}
	if k.deadline == 0 {
		k.deadline = kvmDeadline
	}
	if k.boot == nil {
		k.boot = func(ctx context.Context, qemu string) error { return bootTiny(ctx, qemu, "kvm") }
	}
	return k
}

// processor looks for hardware virtualization: vmx (Intel) or svm (AMD). On arm64 the device is there only where the
// kernel was started at EL2.
func (k KVM) processor() error {
	info, err := os.ReadFile(k.cpuinfo)
	if err != nil {
		return err
	}
	if bytes.Contains(info, []byte("CPU implementer")) {
		return nil
	}
	for line := range bytes.Lines(info) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if string(bytes.TrimSpace(name)) != "flags" {
			continue
		}
		for _, flag := range bytes.Fields(value) {
			if string(flag) == "vmx" || string(flag) == "svm" {
				return nil
			}
		}
	}
	return errkind.WithHint(
		errkind.New(api.KindUnavailable, "%s is a software variant: the processor shows neither vmx nor svm", k.device),
		"use a host with hardware virtualization, or turn on nested virtualization where this host is a VM")
}

// guest boots the tiny guest, unless it was booted before since the host's boot.
func (k KVM) guest(ctx context.Context) error {
	id, err := os.ReadFile(k.bootID)
	if err != nil {
		return err
	}
	verdict := kvmVerdict{BootID: strings.TrimSpace(string(id)), QEMU: k.QEMU}
	path := filepath.Join(k.Dir, "kvm.json")
	var old kvmVerdict
	// A file that is missing or damaged is no verdict.
	if b, err := os.ReadFile(path); err == nil && json.Unmarshal(b, &old) == nil && old.BootID == verdict.BootID && old.QEMU == verdict.QEMU {
		return old.err()
	}
	bounded, cancel := context.WithTimeout(ctx, k.deadline)
	defer cancel()
	if err := k.boot(bounded, k.QEMU); err != nil {
		if ctx.Err() != nil {
			return ctx.Err() // it was not the guest that failed
		}
		if errkind.Is(err, api.KindUnavailable) {
			return nil // QEMU is not installed: device and processor are all there is to go by, for who needs no QEMU
		}
		verdict.Reason = fmt.Sprintf("a tiny guest did not boot on KVM within %v: %v", k.deadline, err)
	}
	b, err := json.Marshal(verdict)
	if err != nil {
		return err
	}
	if err := WriteFile(path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("remember whether KVM works: %w", err)
	}
	return verdict.err()
}

func (v kvmVerdict) err() error {
	if v.Reason == "" {
		return nil
	}
	return errkind.WithHint(errkind.New(api.KindUnavailable, "%s", v.Reason),
		"see the kernel's log for kvm; it is tried again when the host has booted again")
}
