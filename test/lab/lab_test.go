// Package lab runs tests of the project inside a guest that has what a host may lack: device mapper, KVM, vhost-vsock, systemd.
// The guest is a VM of banger's own, under TCG, whose emulated processor has SVM: so its kernel has KVM, and starts guests in turn.
//
// A [suite] is tests of one package. Its test program is compiled here, copied in and run there, as root, in an empty directory,
// with BANGER_LAB naming a directory with the files vmlinux and initrd, the guest of package vmmtest. What it says of its
// tests becomes subtests here, so that they count, and fail, as if they had run on this host. A test that is skipped there is a
// failure: the lab has what it asks for.
//
// Image and kernel stay in the user's cache directory, below banger-lab, or in BANGER_LAB_ROOT. BANGER_FIRECRACKER names a
// firecracker binary that suites of the lab get under the same variable.
package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/vmm/boottest"
	"golang.org/x/sys/unix"
)

// suite is tests that run in the lab.
type suite struct {
	pkg string // below the module's root
	run string // which of its tests, as -test.run wants it
}

func suites() []suite {
	list := []suite{
		{"internal/disk/dmsnap", "ThisKernel$|^TestWhatTheKernelLacks$"},
		{"internal/host", "^TestKVMThatWorks$|^TestLimitsOfThisKernel$"},
		// A few sentences of the suite, since each takes a nested boot of some seconds.
		{"internal/vmm/qemu", "^TestRealGuests$/(outlives_the_context|adopts_the_machine|powers_off|twice_at_once|stays_within_its_size)"},
	}
	if os.Getenv("BANGER_FIRECRACKER") != "" { // all of it: the double must not be wrong
		list = append(list, suite{"internal/vmm/firecracker", "^TestRealGuests$/^direct$|^TestAPI$"})
	}
	return list
}

// packages are what the lab's image has beyond the default one's.
func packages() []string {
	return []string{"systemd", "systemd-sysv", "dbus", "udev", "systemd-resolved", "nftables", "qemu-system-x86", "dmsetup", "e2fsprogs"}
}

func TestLab(t *testing.T) {
	if testing.Short() {
		t.Skip("short: boots a guest")
	}
	programs := t.TempDir()
	l := open(t)
	for _, s := range suites() {
		t.Run(s.pkg, func(t *testing.T) {
			program := filepath.Join(programs, strings.ReplaceAll(s.pkg, "/", "-"))
			build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", program, "./"+s.pkg)
			build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("compile: %v\n%s", err, out)
			}
			l.test(t, s, program)
		})
	}
	in := l.carry(t)
	t.Run("banger with dmsnap on KVM", in.testDMSnap)
	t.Run("banger as a service of systemd", in.testService)
}

// lab is the guest, and the banger that runs it.
type lab struct{ root, bin string }

const (
	vmName  = "lab"
	guestAt = "/root/lab"
)

// open boots the lab's guest, which is gone at the end of the test. On the first run its image is built.
func open(t *testing.T) *lab {
	t.Helper()
	bin, err := filepath.Abs("../../bin/banger")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatalf("%v: `make build` makes it", err)
	}
	l := &lab{root: root(t), bin: bin}
	t.Cleanup(func() {
		l.must(t, "vm", "delete", "--force", vmName)
		l.must(t, "daemon", "stop")
		if left, err := filepath.Glob(filepath.Join(l.root, "*/vms/*")); err != nil || len(left) > 0 {
			t.Errorf("left: %v %v", left, err)
		}
	})
	if !strings.Contains("\n"+l.must(t, "image", "list", "--quiet")+"\n", "\n"+vmName+"\n") {
		args := []string{"image", "build", "debian", vmName, "--quiet", "--init", "/sbin/init"}
		for _, p := range packages() {
			args = append(args, "--package", p)
		}
		l.must(t, args...)
	}
	if out, err := l.banger(context.Background(), "vm", "delete", "--force", vmName); err == nil {
		t.Logf("an earlier run was killed: %s", out)
	}
	l.must(t, "vm", "create", "--quiet", "--start", "--name", vmName, "--image", vmName, "--memory", "2G", "--vcpu", fmt.Sprint(min(2, runtime.NumCPU())))
	// Modules that nothing would load by itself; kvm_amd and vhost_vsock come with their devices.
	l.must(t, "exec", vmName, "--", "modprobe", "-a", "loop", "dm_snapshot", "kvm_amd", "vhost_vsock")
	l.settle(t)
	l.bring(t)
	return l
}

// settle waits until systemd has started everything. The agent answers before systemd does.
func (l *lab) settle(t *testing.T) {
	t.Helper()
	var out string
	for range 600 {
		if out, _ = l.banger(t.Context(), "exec", vmName, "--", "systemctl", "is-system-running"); out == "running" { // it fails until that is so
			return
		}
		<-time.After(200 * time.Millisecond)
	}
	t.Fatalf("systemd is not up: %s", out)
}

// root returns the directory of the lab's banger, locked until the test ends: others wait. Its name has a digest of what the
// image is made of and of the database's migrations, so that no program meets a database that is newer than itself.
func root(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("BANGER_LAB_ROOT")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		migrations, err := filepath.Glob("../../internal/store/migrations/*")
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(strings.Join(append(packages(), migrations...), "\n")))
		dir = filepath.Join(cache, "banger-lab", hex.EncodeToString(sum[:4]))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lab.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return dir
}

// bring copies into the lab what its suites are given.
func (l *lab) bring(t *testing.T) {
	t.Helper()
	base := l.must(t, "kernel", "show", "--format", "{{.Dir}}", l.must(t, "kernel", "list", "--quiet"))
	k := banger.Kernel{ID: "000000000000", Base: filepath.Join(base, "boot"), BootModules: bootModules()}
	initrd := boottest.Initrd(t, k, "../../internal/vmm/vmmtest/testdata/guest", guestapi.BootConfig{Name: "suite"})
	l.must(t, "exec", vmName, "--", "mkdir", guestAt)
	l.must(t, "cp", filepath.Join(base, "vmlinux"), vmName+":"+guestAt+"/vmlinux")
	l.must(t, "cp", filepath.Join(base, "boot"), vmName+":"+guestAt+"/boot")
	l.must(t, "cp", initrd, vmName+":"+guestAt+"/initrd")
	if fc := os.Getenv("BANGER_FIRECRACKER"); fc != "" {
		l.must(t, "cp", fc, vmName+":"+guestAt+"/firecracker")
	}
}

// bootModules are what a guest of the lab's kernel needs, in the order of their needs.
func bootModules() []string {
	return []string{"virtio_ring.ko", "virtio.ko", "virtio_mmio.ko", "virtio_console.ko", "virtio_blk.ko", "failover.ko", "net_failover.ko",
		"virtio_net.ko", "virtio-rng.ko", "vsock.ko", "vmw_vsock_virtio_transport_common.ko", "vmw_vsock_virtio_transport.ko"}
}

// banger runs the CLI and returns both its outputs.
func (l *lab) banger(ctx context.Context, args ...string) (string, error) {
	out, err := l.command(ctx, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (l *lab) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, l.bin, args...)
	cmd.Env = append(os.Environ(), "BANGER_ROOT="+l.root)
	return cmd
}

// must runs the CLI also when t's context has ended.
func (l *lab) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := l.banger(context.Background(), args...)
	if err != nil {
		t.Fatalf("banger %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// test runs the test program of s in the lab, and replays what it says.
func (l *lab) test(t *testing.T, s suite, program string) {
	t.Helper()
	dir := "/root/" + filepath.Base(program)
	l.must(t, "exec", vmName, "--", "mkdir", dir)
	l.must(t, "cp", program, vmName+":"+dir+"/test")
	args := []string{"exec", "-C", dir, "-e", "BANGER_LAB=" + guestAt}
	if os.Getenv("BANGER_FIRECRACKER") != "" {
		// Its suite links the guest's files into directories of its own, which are to be on the same file system.
		args = append(args, "-e", "BANGER_FIRECRACKER="+guestAt+"/firecracker", "-e", "TMPDIR=/root")
	}
	args = append(args, vmName, "--", dir+"/test", "-test.v=test2json", "-test.timeout=15m", "-test.run="+s.run)
	out, err := l.command(t.Context(), args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	convert := exec.CommandContext(t.Context(), "go", "tool", "test2json", "-t", "-p", s.pkg)
	convert.Stdin = bytes.NewReader(out)
	events, convErr := convert.Output()
	if convErr != nil {
		t.Fatal(convErr)
	}
	r, readErr := read(bytes.NewReader(events))
	if readErr != nil {
		t.Fatal(readErr)
	}
	r.replay(t, "")
	if err != nil && !t.Failed() || len(r.tests) == 0 {
		t.Errorf("%d tests ran, and the program ended with %v:\n%s", len(r.tests), err, out)
	}
}
