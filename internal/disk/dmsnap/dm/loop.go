package dm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"golang.org/x/sys/unix"
)

const loopControl = "/dev/loop-control"

// Loop is a loop device that is held open.
type Loop struct {
	f *os.File
}

// Close lets go of the device. The kernel clears it when nothing else uses it.
func (l Loop) Close() error { return l.f.Close() }

// Number is the device's major and minor number, as a table has it.
func (l Loop) Number() (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(l.f.Fd()), &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: l.f.Name(), Err: err}
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

// Loop returns a loop device of the file at path, of its present size: the one that there is, else a new one.
func (Kernel) Loop(path string, readOnly bool) (Loop, error) {
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	file, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return Loop{}, err
	}
	defer file.Close() // the loop device keeps the file open
	l, err := findLoop(file, mode)
	if err == nil && l.f == nil {
		l, err = newLoop(file, mode)
	}
	if err != nil {
		return Loop{}, fmt.Errorf("attach %s to a loop device: %w", path, err)
	}
	return l, nil
}

// findLoop looks for a loop device of file that was made by newLoop in that mode. There need not be one.
func findLoop(file *os.File, mode int) (Loop, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return Loop{}, err
	}
	// Only devices that are in use have the directory "loop" (Documentation/ABI/testing/sysfs-block).
	candidates, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return Loop{}, err
	}
	for _, c := range candidates {
		if name, err := os.ReadFile(c); err != nil || strings.TrimSuffix(string(name), "\n") != file.Name() {
			continue // another's, or just cleared
		}
		f, err := os.OpenFile("/dev/"+strings.Split(c, "/")[3], mode|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // just cleared
		}
		// What is open is not cleared, so what is seen now stays true.
		info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
		if err == nil && info.Device == uint64(st.Dev) && info.Inode == st.Ino && info.Offset == 0 && info.Flags == loopFlags(mode) {
			return resized(f, st.Size)
		}
		f.Close()
	}
	return Loop{}, nil
}

func loopFlags(mode int) uint32 {
	if mode == os.O_RDONLY {
		return unix.LO_FLAGS_AUTOCLEAR | unix.LO_FLAGS_READ_ONLY
	}
	return unix.LO_FLAGS_AUTOCLEAR
}

// resized makes the device as large as its file has become.
func resized(f *os.File, size int64) (Loop, error) {
	now, err := f.Seek(0, 2)
	if err == nil && now != size {
		err = unix.IoctlSetInt(int(f.Fd()), unix.LOOP_SET_CAPACITY, 0)
	}
	if err != nil {
		return Loop{}, errors.Join(fmt.Errorf("resize %s: %w", f.Name(), err), f.Close())
	}
	return Loop{f}, nil
}

// loopTries is how often another may take the device that was free.
const loopTries = 100

func newLoop(file *os.File, mode int) (Loop, error) {
	ctl, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return Loop{}, noLoops(err)
	}
	defer ctl.Close()
	for range loopTries {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return Loop{}, fmt.Errorf("find a free loop device: %w", err)
		}
		f, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), mode|unix.O_CLOEXEC, 0)
		if err != nil {
			return Loop{}, err
		}
		err = configure(f, file, mode)
		if err == nil {
			return Loop{f}, nil
		}
		f.Close()
		if !errors.Is(err, unix.EBUSY) {
			return Loop{}, err
		}
	}
	return Loop{}, errkind.New(api.KindBusy, "others took every free loop device first")
}

func configure(loop, file *os.File, mode int) error {
	cfg := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: loopFlags(mode)}}
	copy(cfg.Info.File_name[:len(cfg.Info.File_name)-1], file.Name()) // for losetup; the kernel knows the whole of it
	err := unix.IoctlLoopConfigure(int(loop.Fd()), &cfg)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
		return errkind.WithHint(errkind.New(api.KindUnavailable, "the kernel cannot configure a loop device in one step (%w)", err),
			"Linux 5.8 or newer can")
	}
	return err
}

func noLoops(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV):
		return errkind.WithHint(errkind.New(api.KindUnavailable, "the kernel has no loop devices (%w)", err),
			"load the module loop: `sudo modprobe loop`")
	case errors.Is(err, os.ErrPermission):
		return errkind.WithHint(errkind.New(api.KindPermission, "loop devices are for root only (%w)", err), "run the daemon as root")
	}
	return err
}
