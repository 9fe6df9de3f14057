package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/disk/qcow2"
	"github.com/banger-vm/banger/internal/disk/reflink"
	"github.com/banger-vm/banger/internal/initramfs"
	"github.com/banger-vm/banger/internal/store"
)

// BenchmarkRun is a whole `banger run --rm -- true`, beside the time from the start of QEMU to its end when the same kernel
// boots on the same disk and powers off at once. It also gives the daemon's share: the operation without the start of the
// VMM's process and without the wait for the guest.
func BenchmarkRun(b *testing.B) {
	floor := newFloor(b)
	mark, daemon := home.logMark(b), home.dial(b).Daemon().PID
	var runs, floors, runsCPU, floorsCPU samples
	for b.Loop() {
		for range 15 {
			wall, cpu := floor.time(b)
			floors, floorsCPU = append(floors, wall), append(floorsCPU, cpu)
			before := spent(b, daemon)
			runs = append(runs, home.timed(b, "run", "--rm", "--cold", "--no-workspace", "--quiet", "--", "true"))
			runsCPU = append(runsCPU, spent(b, daemon)-before)
		}
	}
	ratio := runs.ratio(floors)
	results.add(row{what: "run --rm -- true; QEMU, kernel, power off", value: ms(runs.median()), beside: ms(floors.median()),
		ratio: ratio, target: "<= 1.25", met: ratio <= 1.25})
	b.ReportMetric(ratio, "ratio")
	// A busy machine stretches what has more steps; processor time is nearly the same on any.
	results.add(row{what: "the same, processor time without the CLI's", value: ms(runsCPU.median()), beside: ms(floorsCPU.median()),
		ratio: runsCPU.ratio(floorsCPU)})

	log := home.logSince(b, mark)
	whole, machine, guest := took(b, log, `kind=vm.create`), took(b, log, `step=machine.attach`), took(b, log, `step=agent.attach`)
	var share samples
	for i := range whole {
		share = append(share, whole[i]-machine[i]-guest[i])
	}
	results.add(within("the daemon's share of a start", share, 50*time.Millisecond))
	results.add(row{what: "start of the VMM's process", value: ms(samples(machine).median())})
	results.add(row{what: "wait for the guest's agent", value: ms(samples(guest).median())})
	results.add(row{what: "deletion of a running VM", value: ms(samples(took(b, log, `method=vm.delete`)).median())})
}

// floor is a bare QEMU that boots the kernel and the root disk of banger's VMs.
type floor struct{ argv []string }

func newFloor(b *testing.B) floor {
	b.Helper()
	home.startVM(b, "model")
	args, err := home.machineArgs(b.Context(), home.dial(b), "model")
	if err != nil {
		b.Fatal(err)
	}
	value := func(option string) string { // of the VM that banger runs
		i := slices.Index(args, option)
		if i < 0 {
			b.Fatalf("the VMM was started without %s: %q", option, args)
		}
		return args[i+1]
	}
	image, kernel := records(b)
	root := disk.Volume{Base: image.Rootfs, Path: filepath.Join(home.scratch, "floor"), Size: image.RootSize}
	attached := clone(b, qcow2.New(), root)
	// Without boot modules the guest does not reach the disk, and need not.
	initrd := filepath.Join(home.scratch, "floor.initrd")
	bare := banger.Kernel{ID: kernel.ID, Name: kernel.Name}
	if err := initramfs.New(home.scratch, buildPowerOff(b)).Build(b.Context(), initrd, bare, guestapi.BootConfig{}); err != nil {
		b.Fatal(err)
	}
	bus := "device"
	if value("-M") != "microvm" {
		bus = "pci"
	}
	return floor{argv: []string{args[0], "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-M", value("-M"), "-accel", value("-accel"), "-cpu", value("-cpu"), "-m", value("-m"), "-smp", value("-smp"),
		"-kernel", kernel.Image, "-initrd", initrd, "-append", value("-append"),
		"-serial", "file:" + filepath.Join(home.scratch, "floor.console"),
		"-drive", "if=none,id=root,format=" + attached.Format + ",file=" + attached.Path, "-device", "virtio-blk-" + bus + ",drive=root"}}
}

// time boots and returns the wall and the processor time of QEMU.
func (f floor) time(b *testing.B) (wall, cpu time.Duration) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, f.argv[0], f.argv[1:]...)
	begun := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%q: %v\n%s", f.argv, err, out)
	}
	return time.Since(begun), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// records are the image and the kernel that VMs are made of.
func records(b *testing.B) (banger.Image, banger.Kernel) {
	b.Helper()
	db, err := store.Open(b.Context(), home.paths.DB())
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	vm, err := db.GetVM(b.Context(), "model")
	if err != nil {
		b.Fatal(err)
	}
	image, err := db.GetImage(b.Context(), string(vm.Spec.ImageID))
	if err != nil {
		b.Fatal(err)
	}
	kernel, err := db.GetKernel(b.Context(), string(vm.Spec.KernelID))
	if err != nil {
		b.Fatal(err)
	}
	return image, kernel
}

func buildPowerOff(b *testing.B) string {
	b.Helper()
	path := filepath.Join(home.scratch, "poweroff")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./testdata/poweroff")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build ./testdata/poweroff: %v\n%s", err, out)
	}
	return path
}

func clone(b *testing.B, c disk.Cloner, v disk.Volume) disk.Attachment {
	b.Helper()
	if err := c.Create(b.Context(), v); err != nil {
		b.Fatal(err)
	}
	a, err := c.Activate(b.Context(), v)
	if err != nil {
		b.Fatal(err)
	}
	return a
}

// BenchmarkClone makes a root disk of images of two sizes, with the cloner that this file system gets.
func BenchmarkClone(b *testing.B) {
	cloner := qcow2.New()
	if reflink.Probe(home.scratch) == nil {
		cloner = reflink.New()
	}
	sizes := []int64{1, 64} // GiB
	times := make([]samples, len(sizes))
	for i, gib := range sizes {
		base := filepath.Join(home.scratch, "base"+strconv.FormatInt(gib, 10))
		if err := os.WriteFile(base, nil, 0o600); err != nil {
			b.Fatal(err)
		}
		if err := os.Truncate(base, gib<<30); err != nil {
			b.Fatal(err)
		}
		v := disk.Volume{Base: base, Path: base + ".clone", Size: gib << 30}
		for range 50 {
			begun := time.Now()
			clone(b, cloner, v)
			times[i] = append(times[i], time.Since(begun))
			if err := cloner.Remove(b.Context(), v); err != nil {
				b.Fatal(err)
			}
		}
	}
	for i, gib := range sizes {
		results.add(within(fmt.Sprintf("root disk by %s, image of %d GiB", cloner.Name(), gib), times[i], 20*time.Millisecond))
	}
}
