// Command probe is /init of a guest that tells, on its console, what the initramfs and the kernel gave it, and powers off.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/api/guestapi"
	"golang.org/x/sys/unix"
)

func main() {
	if err := probe(); err != nil {
		fmt.Println("PROBE failed:", err)
	}
	fmt.Println("PROBE end")
	unix.Sync()
	fmt.Println(unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

func probe() error {
	say := func(format string, args ...any) { fmt.Printf("PROBE "+format+"\n", args...) }
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return err
	}
	say("uptime %s", strings.Fields(string(uptime))[0])
	b, err := os.ReadFile("/vm.json")
	if err != nil {
		return err
	}
	var cfg guestapi.BootConfig
	if err := json.Unmarshal(b, &cfg); err != nil {
		return err
	}
	say("name %s", cfg.Name)
	for _, path := range cfg.Modules {
		if err := load(path); err != nil {
			return fmt.Errorf("module %s: %w", path, err)
		}
	}
	say("modules %d", len(cfg.Modules))
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	say("release %s", unix.ByteSliceToString(u.Release[:]))
	for _, glob := range []string{"/sys/class/net/e*", "/dev/hwrng", "/sys/class/virtio-ports/*"} {
		found, _ := filepath.Glob(glob)
		say("%s %v", glob, len(found) > 0)
	}
	if err := unix.Mount("/dev/vda", "/newroot", "ext4", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount module tree: %w", err)
	}
	for _, name := range []string{"modules.dep", "modules.dep.bin", "modules.alias.bin", "kernel/fs/overlayfs/overlay.ko"} {
		if _, err := os.Stat(filepath.Join("/newroot", name)); err != nil {
			return err
		}
	}
	if err := load("/newroot/kernel/fs/overlayfs/overlay.ko"); err != nil {
		return fmt.Errorf("module of the tree: %w", err)
	}
	say("tree fine")
	return nil
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}
