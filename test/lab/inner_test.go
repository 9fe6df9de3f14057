package lab

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/store"
)

// inner is a banger in the lab, whose disks are device-mapper snapshots and whose guests run on KVM.
type inner struct {
	*lab
	t *testing.T
}

// innerAt is its BANGER_ROOT; the programs are beside it.
const innerAt = "/root/inner"

// carry copies the built programs into the lab, and a state with one kernel and one image, which is empty but for the directories
// that the agent mounts on.
func (l *lab) carry(t *testing.T) inner {
	t.Helper()
	dir := t.TempDir()
	at := func(parts ...string) string { return filepath.Join(append([]string{dir, "inner"}, parts...)...) }
	for _, d := range []string{"state", "tree/dev", "tree/proc", "tree/sys", "tree/run", "tree/tmp", "tree/etc", "tree/root"} {
		if err := os.MkdirAll(at(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	const size = 64 << 20
	if out, err := exec.CommandContext(t.Context(), "mke2fs", "-q", "-t", "ext4", "-d", at("tree"), at("image.ext4"), "64M").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
	s, err := store.Open(t.Context(), at("state", "banger.db"))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		s.PutKernel(t.Context(), banger.Kernel{ID: "000000000000", Name: "lab", Format: "elf", Image: guestAt + "/vmlinux",
			Base: guestAt + "/boot", BootModules: bootModules()}),
		s.PutImage(t.Context(), banger.Image{ID: "000000000000", Name: "empty", Kernel: "lab", Init: guestapi.InitAgent,
			Rootfs: innerAt + "/image.ext4", RootSize: size, WorkSeed: innerAt + "/image.ext4", WorkSize: size}),
		s.Close(), os.RemoveAll(at("tree")))
	if err != nil {
		t.Fatal(err)
	}
	l.must(t, "cp", at(), vmName+":/root")
	l.must(t, "cp", filepath.Dir(l.bin), vmName+":"+innerAt)
	return inner{l, t}
}

// run runs a program in the lab, with the inner banger's environment, and returns what it prints.
func (i inner) run(argv ...string) string {
	i.t.Helper()
	return i.must(i.t, append([]string{"exec", "-C", innerAt, "-e", "BANGER_ROOT=" + innerAt, "-e", "BANGER_DISK_CLONER=dmsnap",
		"-e", "BANGER_QEMU_ACCEL=kvm", vmName, "--"}, argv...)...)
}

func (i inner) command(words ...string) string {
	i.t.Helper()
	return i.run(append([]string{"bin/banger"}, words...)...)
}

// devices returns what there is of snapshots and loop devices. udev may be looking at one that is about to go.
func (i inner) devices() string {
	i.t.Helper()
	return i.run("sh", "-c", "udevadm settle; dmsetup ls | grep -o '^banger-[^\t]*'; losetup --noheadings --output BACK-FILE")
}
