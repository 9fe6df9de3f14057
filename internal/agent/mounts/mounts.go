// Package mounts mounts the guest's file systems, grows them, and takes them down at power-off.
package mounts

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api/guestapi"
)

// Entry is a line of the mount table.
type Entry struct {
	Device, Target, Type string
}

// OnDisk reports whether the file system is on a block device.
func (e Entry) OnDisk() bool { return strings.HasPrefix(e.Device, "/dev/") }

// Table returns what is mounted, in order (/proc/self/mounts, fstab(5)).
func Table() ([]Entry, error) {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var table []Entry
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 3 {
			table = append(table, Entry{Device: unescape.Replace(f[0]), Target: unescape.Replace(f[1]), Type: f[2]})
		}
	}
	return table, nil
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// flagOptions are the mount options that are flags to mount(2); all others go to the file system.
var flagOptions = map[string]uintptr{
	"ro": unix.MS_RDONLY, "nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC, "noatime": unix.MS_NOATIME,
	"relatime": unix.MS_RELATIME, "nodiratime": unix.MS_NODIRATIME, "sync": unix.MS_SYNCHRONOUS, "dirsync": unix.MS_DIRSYNC,
	"lazytime": unix.MS_LAZYTIME,
}

// Options returns the flags and data that mount(2) gets for m. Without options, ext4 is mounted noatime and
// noinit_itable: a throw-away machine should neither write on reading nor initialise inode tables in the background.
func Options(m guestapi.Mount) (flags uintptr, data string) {
	options := m.Options
	if options == "" && m.Type == "ext4" {
		options = "noatime"
		if !m.ReadOnly {
			options += ",noinit_itable"
		}
	}
	var rest []string
	for _, o := range strings.Split(options, ",") {
		if f, ok := flagOptions[o]; ok {
			flags |= f
		} else if o != "" && o != "rw" && o != "defaults" {
			rest = append(rest, o)
		}
	}
	if m.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	return flags, strings.Join(rest, ",")
}

// Mount mounts m on target, which is created when it is missing. It waits up to wait for the device to appear.
func Mount(m guestapi.Mount, target string, wait time.Duration) error {
	if strings.HasPrefix(m.Device, "/") {
		if err := waitDevice(m.Device, wait); err != nil {
			return err
		}
	}
	if _, err := os.Stat(target); err != nil {
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
	}
	flags, data := Options(m)
	if err := unix.Mount(m.Device, target, m.Type, flags, data); err == unix.ENODEV {
		return fmt.Errorf("mount %s on %s: the kernel has no file system %q", m.Device, target, m.Type)
	} else if err != nil {
		return fmt.Errorf("mount %s (%s) on %s: %w", m.Device, m.Type, target, err)
	}
	return nil
}

// waitDevice waits for a device node with a short back-off. The kernel makes it (devtmpfs) when the driver has found the
// device, which is mostly before the driver's module has finished loading.
func waitDevice(path string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for pause := 200 * time.Microsecond; ; pause = min(2*pause, 4*time.Millisecond) {
		_, err := os.Stat(path)
		if err == nil || !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no device %s within %s", path, limit)
		}
		time.Sleep(pause)
	}
}

// TakeDown unmounts every file system that is on a disk, latest first, and makes read-only what is still busy, so that
// nothing is lost at power-off. It returns what could be made neither.
func TakeDown() error {
	table, err := Table()
	if err != nil {
		return err
	}
	var errs []error
	for i := len(table) - 1; i >= 0; i-- {
		m := table[i]
		if !m.OnDisk() {
			continue
		}
		if m.Target != "/" && unix.Unmount(m.Target, 0) == nil {
			continue
		}
		if err := unix.Mount("", m.Target, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			errs = append(errs, fmt.Errorf("make %s read-only: %w", m.Target, err))
		}
	}
	return errors.Join(errs...)
}
