// Package boot turns a kernel and an initramfs into a guest: modules, root, mounts, the move to the real root.
//
// It runs as PID 1, from the initramfs, and has two parts. [Enter] does what everything else needs and ends in the
// real root; if it fails there is no guest, and [Fail] says why on the console. The rest a guest can be without, and
// what goes wrong there is a warning in the journal: [Prepare], [Grow] and [Network] come before the first command runs in
// the guest, [Settle] and [LoadLate] beside it.
//
// A boot under emulation is counted in system calls and page faults: nothing here starts a process.
package boot

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/control"
	"github.com/banger-vm/banger/internal/agent/facts"
	"github.com/banger-vm/banger/internal/agent/mounts"
)

// ConfigFile is the boot configuration in the initramfs.
const ConfigFile = "/vm.json"

// newRoot is where the root file system is mounted until it takes the place of the initramfs.
const newRoot = "/newroot"

// deviceWait is how long a disk may take to appear.
const deviceWait = 5 * time.Second

// StepError is an essential step that failed.
type StepError struct {
	Step string
	Err  error
}

func (e *StepError) Error() string { return e.Step + ": " + e.Err.Error() }
func (e *StepError) Unwrap() error { return e.Err }

// Load mounts the kernel's own file systems in the initramfs and reads the configuration.
func Load(j *facts.Journal) (guestapi.BootConfig, error) {
	var cfg guestapi.BootConfig
	j.Phase("agent started")
	for _, m := range []guestapi.Mount{
		{Device: "dev", Target: "/dev", Type: "devtmpfs", Options: "nosuid"},
		{Device: "proc", Target: "/proc", Type: "proc", Options: "nosuid,nodev,noexec"},
		{Device: "sys", Target: "/sys", Type: "sysfs", Options: "nosuid,nodev,noexec"},
	} {
		if err := mounts.Mount(m, m.Target, 0); err != nil {
			return cfg, &StepError{"prepare the initramfs", err}
		}
	}
	b, err := os.ReadFile(ConfigFile)
	if err == nil {
		err = json.Unmarshal(b, &cfg)
	}
	if err != nil {
		return cfg, &StepError{"read " + ConfigFile, err}
	}
	return cfg, nil
}

// LoadModules loads the modules of the initramfs that cfg names; those of vsock, which come after those of the bus, only where
// there is such a device.
func LoadModules(cfg guestapi.BootConfig, j *facts.Journal) error {
	hasVsock := sync.OnceValue(control.HasVsock)
	for _, path := range cfg.Modules {
		if strings.Contains(filepath.Base(path), "vsock") && !hasVsock() {
			continue
		}
		if err := loadModule(path); err != nil {
			return &StepError{"load module " + path, err}
		}
	}
	j.Phase("modules loaded")
	return nil
}

// loadModule gives the kernel the module at path. One that is loaded already, or built in, is no error.
func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

// Enter mounts the root and everything on it, and makes it the root of this process.
func Enter(cfg guestapi.BootConfig, j *facts.Journal) error {
	if err := mounts.Mount(cfg.Root, newRoot, deviceWait); err != nil {
		return &StepError{"mount root", err}
	}
	j.Phase("root mounted")
	initramfs, err := os.OpenRoot("/")
	if err != nil {
		return &StepError{"enter root", err}
	}
	if err := switchRoot(); err != nil {
		return &StepError{"enter root", err}
	}
	go freeInitramfs(initramfs, j)
	if err := mountAll(cfg, j); err != nil {
		return err
	}
	j.Phase("root entered")
	return nil
}

// switchRoot moves the kernel's file systems into the new root and that over the initramfs, as switch_root(8) does. The
// initramfs can be neither unmounted nor left by pivot_root(2).
func switchRoot() error {
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		to := newRoot + dir
		if err := os.Mkdir(to, 0o755); err != nil && !os.IsExist(err) {
			return fmt.Errorf("%w (the image has no %s, and none can be made)", err, dir)
		}
		if err := unix.Mount(dir, to, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to /: %w", newRoot, err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// freeInitramfs deletes what the boot no longer needs, to give its memory back. The agent itself runs on from its file.
func freeInitramfs(r *os.Root, j *facts.Journal) {
	defer r.Close()
	for _, name := range []string{"modules", "vm.json", "init"} {
		j.Warn("free the initramfs", r.RemoveAll(name))
	}
}

// system is what every guest has mounted besides its disks.
func system() []guestapi.Mount {
	return []guestapi.Mount{
		{Device: "devpts", Target: "/dev/pts", Type: "devpts", Options: "nosuid,noexec,gid=5,mode=620,ptmxmode=666"},
		{Device: "shm", Target: "/dev/shm", Type: "tmpfs", Options: "nosuid,nodev,mode=1777"},
		{Device: "run", Target: "/run", Type: "tmpfs", Options: "nosuid,nodev,mode=755"},
		{Device: "cgroup2", Target: "/sys/fs/cgroup", Type: "cgroup2", Options: "nosuid,nodev,noexec,nsdelegate,memory_recursiveprot", Optional: true},
	}
}

func mountAll(cfg guestapi.BootConfig, j *facts.Journal) error {
	for _, m := range append(system(), cfg.Mounts...) {
		err := mounts.Mount(m, m.Target, deviceWait)
		if err != nil && m.Optional {
			j.Warn("mount "+m.Target, err)
		} else if err != nil {
			return &StepError{"mount " + m.Target, err}
		}
	}
	for _, dir := range []string{"/run/lock", "/tmp"} {
		if err := os.Mkdir(dir, 0o1777); err == nil {
			j.Warn("prepare "+dir, os.Chmod(dir, 0o1777|os.ModeSticky))
		}
	}
	// udev makes these where it runs; shells' process substitution and much else expect them.
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(target, "/dev/"+name); err != nil && !os.IsExist(err) {
			j.Warn("link /dev/"+name, err)
		}
	}
	return nil
}

// Grow extends the file systems that the configuration wants to fill their devices.
func Grow(cfg guestapi.BootConfig, j *facts.Journal) {
	root := cfg.Root
	root.Target = "/"
	for _, m := range append([]guestapi.Mount{root}, cfg.Mounts...) {
		if m.Grow && !m.ReadOnly {
			j.Warn("grow "+m.Target, mounts.Grow(m.Device, m.Target))
		}
	}
}

// LoadLate loads the modules that are on the mounted module tree.
func LoadLate(cfg guestapi.BootConfig, j *facts.Journal) {
	var tree string
	for _, m := range cfg.Mounts {
		if strings.HasPrefix(m.Target, "/lib/modules/") {
			tree = m.Target
		}
	}
	for _, path := range cfg.LateModules {
		if !filepath.IsAbs(path) {
			path = filepath.Join(tree, path)
		}
		j.Warn("load module "+path, loadModule(path))
	}
	if len(cfg.LateModules) > 0 {
		j.Phase("late modules loaded")
	}
}

// Fail tells the console that the boot failed, and why.
func Fail(err error) {
	fmt.Fprintf(os.Stderr, "\nbanger-agent: %v\n", err)
	unix.IoctlSetInt(int(os.Stderr.Fd()), unix.TCSBRK, 1) // tcdrain(3): the machine is about to end
}
