package daemon

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// engine is what runs VMs on this host.
type engine struct {
	drivers map[string]vmm.Driver
	auto    vmm.Driver
	reason  string // why auto is what it is
}

func openEngine(ctx context.Context, o Options, log *slog.Logger) (engine, error) {
	kvmErr := kvmUsable()
	d := qemu.New(ctx, qemu.Config{Binary: o.Config.QEMUBin, KVM: kvmErr == nil, Log: log})
	e := engine{drivers: map[string]vmm.Driver{d.Name(): d}, auto: d, reason: "hardware virtualization by KVM"}
	if kvmErr != nil {
		e.reason = "emulation, because " + kvmErr.Error()
	}
	return e, nil
}

// kvmUsable returns why KVM cannot run ordinary guests here. A /dev/kvm on a processor without virtualization extensions is a
// software variant on which ordinary kernels hang, so the device alone proves nothing.
func kvmUsable() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	f.Close()
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(info) {
		if !bytes.HasPrefix(line, []byte("flags")) {
			continue
		}
		for _, flag := range bytes.Fields(line) {
			if string(flag) == "vmx" || string(flag) == "svm" {
				return nil
			}
		}
	}
	return errkind.WithHint(fmt.Errorf("/dev/kvm is there, but the processor has neither vmx nor svm"),
		"use a host with hardware virtualization, or go on with emulation")
}
