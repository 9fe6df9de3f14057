// Package dm speaks to the kernel's device mapper and loop driver by their ioctls (include/uapi/linux/dm-ioctl.h,
// include/uapi/linux/loop.h): a call takes microseconds where dmsetup takes a process.
//
// A device is known by its name. Its life: Create → Load → Resume → Remove; the kernel shows it as /dev/dm-N from Create on, and
// needs no udev for that. Loop devices are made to vanish with their last user: one that a device was loaded with lives as long
// as that, and one whose maker died before is gone at once. So nothing has to be counted, and no crash leaves one.
//
// Errors carry kinds: not-found for a device that does not exist, busy for one that is open, unavailable where the kernel lacks
// device mapper, loop or target, permission without CAP_SYS_ADMIN.
package dm

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"golang.org/x/sys/unix"
)

// Target is one stretch of a device, in sectors of 512 bytes. Text is its parameters in a table and its condition in a status
// (Documentation/admin-guide/device-mapper).
type Target struct {
	Start, Length uint64
	Type          string
	Text          string
}

// Kernel is the running kernel.
type Kernel struct{}

const control = "/dev/mapper/" + unix.DM_CONTROL_NODE

// Probe returns nil where the kernel has device mapper with the target and loop devices, and lets the caller use them.
func (Kernel) Probe(target string) error {
	r := request{}
	if copy(r.Name[:len(r.Name)-1], target); len(target) >= len(r.Name) {
		return errkind.New(api.KindInvalid, "target name %q is too long", target)
	}
	// The command loads the target's module; kernels before 5.4 do not have it, and find out when a table is loaded.
	if err := r.do(unix.DM_GET_TARGET_VERSION); err != nil && !errors.Is(err, unix.ENOTTY) {
		return explain(err)
	}
	f, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return noLoops(err)
	}
	return f.Close()
}

// Create makes a device without a table. One of that name that exists is of kind busy.
func (Kernel) Create(name string) error {
	r, err := named(name)
	if err == nil {
		err = r.do(unix.DM_DEV_CREATE)
	}
	return wrap("create", name, err)
}

// Load gives a device a table, which takes effect at Resume.
func (Kernel) Load(name string, table []Target) error {
	r, err := named(name)
	if err == nil {
		err = r.encode(table)
	}
	if err == nil {
		err = r.do(unix.DM_TABLE_LOAD)
	}
	return wrap("load a table into", name, err)
}

// Resume puts the loaded table into effect, and returns the path of the device's node.
func (Kernel) Resume(name string) (string, error) {
	r, err := named(name)
	if err == nil {
		err = r.do(unix.DM_DEV_SUSPEND) // without DM_SUSPEND_FLAG it resumes
	}
	return r.node(), wrap("resume", name, err)
}

// Remove removes a device. One that is open is of kind busy.
func (Kernel) Remove(name string) error {
	r, err := named(name)
	if err == nil {
		err = r.do(unix.DM_DEV_REMOVE)
	}
	return wrap("remove", name, err)
}

// Table returns the table that is in effect, and the path of the device's node. A device that was never resumed has none.
func (Kernel) Table(name string) (node string, table []Target, err error) {
	return query(name, unix.DM_STATUS_TABLE_FLAG)
}

// Status returns what each target of a device says of its condition.
func (Kernel) Status(name string) ([]Target, error) {
	_, status, err := query(name, 0)
	return status, err
}

func query(name string, flags uint32) (string, []Target, error) {
	r, err := named(name)
	if err == nil {
		r.Flags = flags
		err = r.do(unix.DM_TABLE_STATUS)
	}
	if err != nil {
		return "", nil, wrap("look at", name, err)
	}
	if r.Flags&unix.DM_BUFFER_FULL_FLAG != 0 {
		return "", nil, fmt.Errorf("look at device %q: its table is longer than %d bytes", name, payloadSize)
	}
	targets, err := r.decode()
	return r.node(), targets, wrap("look at", name, err)
}

const payloadSize = 4096

// request is struct dm_ioctl with what follows it.
type request struct {
	unix.DmIoctl
	payload [payloadSize]byte
}

func named(name string) (*request, error) {
	r := &request{}
	if len(name) >= len(r.Name) {
		return r, errkind.New(api.KindInvalid, "name %q has more than %d bytes", name, len(r.Name)-1)
	}
	copy(r.Name[:], name)
	return r, nil
}

func (r *request) do(command uint) error {
	f, err := os.OpenFile(control, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	r.Version = [3]uint32{unix.DM_VERSION_MAJOR} // the lowest minor: nothing here is newer
	r.Data_size, r.Data_start = uint32(unsafe.Sizeof(*r)), unix.SizeofDmIoctl
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), uintptr(command), uintptr(unsafe.Pointer(r)))
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}

// node is where the kernel shows the device (devtmpfs).
func (r *request) node() string { return fmt.Sprintf("/dev/dm-%d", unix.Minor(r.Dev)) }

// wrap says what was done to which device, and what kind of error that is.
func wrap(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s device %q: %w", verb, name, explain(err))
}

// explain is the one table from what the device mapper answers to kinds and hints.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENXIO):
		return errkind.New(api.KindNotFound, "no such device")
	case errors.Is(err, unix.EBUSY):
		return errkind.New(api.KindBusy, "device is in use")
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV):
		return errkind.WithHint(errkind.New(api.KindUnavailable, "the kernel has no device mapper (%w)", err),
			"load the module dm_mod: `sudo modprobe dm_mod`")
	case errors.Is(err, os.ErrPermission):
		return errkind.WithHint(errkind.New(api.KindPermission, "device mapper is for root only (%w)", err), "run the daemon as root")
	case errors.Is(err, unix.EINVAL):
		return errkind.WithHint(errkind.New(api.KindUnavailable, "the kernel refuses the table, or lacks its target (%w)", err),
			"load the module dm_snapshot: `sudo modprobe dm_snapshot`; `dmesg` says what the kernel missed")
	}
	return err
}
