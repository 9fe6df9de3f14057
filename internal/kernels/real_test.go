package kernels

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/boottest"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// TestDebiansCloudKernel imports the real kernel with apt and boots it with a real initramfs.
func TestDebiansCloudKernel(t *testing.T) {
	if testing.Short() {
		t.Skip("short: downloads a kernel and boots a guest")
	}
	require(t, "apt-get", "apt-cache", "dpkg-deb", "depmod", "mke2fs", "go")
	m, s := newManager(t)
	type result struct {
		k   banger.Kernel
		err error
	}
	results := make(chan result)
	for range 2 { // they share one import
		go func() {
			k, err := m.EnsureDefault(t.Context(), opstate.Discard)
			results <- result{k, err}
		}()
	}
	a, b := <-results, <-results
	if a.err != nil || b.err != nil {
		t.Fatalf("import: %v, %v", a.err, b.err)
	}
	k := a.k
	if k.ID != b.k.ID || len(s.all) != 1 || k.Name != DefaultName || k.Format != "elf" || len(left(t, m)) != 1 {
		t.Errorf("kernels %+v and %+v; left %v", k, b.k, left(t, m))
	}
	console := boot(t, k)
	for _, want := range []string{
		`PROBE name probe`, `PROBE release ` + regexp.QuoteMeta(k.Release), `PROBE tree fine`, `PROBE end`,
		`PROBE /sys/class/net/e\* true`, `PROBE /dev/hwrng true`, `PROBE /sys/class/virtio-ports/\* true`,
	} {
		if !regexp.MustCompile(want).MatchString(console) {
			t.Errorf("console does not say %s", want)
		}
	}
	if t.Failed() {
		t.Log(console)
	}
	for line := range strings.Lines(console) {
		if strings.HasPrefix(line, "PROBE uptime") {
			t.Logf("kernel, until its init: %s s", strings.Fields(line)[2])
		}
	}
}

// boot boots k with the program in testdata/probe as init and its module tree as the only disk, and returns the console.
func boot(t *testing.T, k banger.Kernel) string {
	t.Helper()
	driver := qemu.New(t.Context(), qemu.Config{Accel: vmm.AccelTCG, Log: slog.New(slog.DiscardHandler)})
	run, err := os.MkdirTemp("", "bk") // sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	spec := vmm.Spec{
		ID: banger.NewID[banger.VMID](), Name: "probe", Dir: t.TempDir(), RunDir: run, VCPU: 1, MemMiB: 256,
		Kernel: k.Image, Initrd: boottest.Initrd(t, k, "testdata/probe", guestapi.BootConfig{Name: "probe"}),
		NIC:   &vmm.NIC{MAC: "52:54:00:12:34:56"},
		Disks: []vmm.Disk{{Path: k.Modules, Format: "raw", ReadOnly: true}},
	}
	if problems := driver.Check(t.Context(), vmm.Spec{VCPU: 1, MemMiB: 256, Kernel: k.Image, Initrd: k.Image}); len(problems) > 0 {
		t.Skipf("no guest can be booted here: %+v", problems)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	machine, err := driver.Start(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := machine.Kill(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-machine.Exited():
	case <-ctx.Done():
		t.Error("the guest does not power off")
	}
	console, err := os.ReadFile(filepath.Join(spec.Dir, vmm.ConsoleLog))
	if err != nil {
		t.Fatal(err)
	}
	return string(console)
}
