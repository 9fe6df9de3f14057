package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"golang.org/x/sys/unix"
)

// WriteFile replaces the file at path by data, atomically and durably: a reader and a crash see the old or the new one.
func WriteFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, and is meant to
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Sync makes the file or the directory at path durable (fsync(2)).
func Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Lock takes an exclusive lock on the file at path, which it creates, without waiting (flock(2)). The lock is held until
// the returned file is closed or the process ends. One that is taken is an error of kind busy.
func Lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errkind.New(api.KindBusy, "%s is locked by another process", path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// PrivateDir makes path a directory that only the caller can enter, with its parents. An existing one must be the
// caller's own and no symbolic link; it is made private. Its parent must be one in which no stranger can replace it: the
// caller's or root's, and not writable by everybody unless sticky, as /tmp is. What is refused is of kind permission.
func PrivateDir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !st.IsDir() || owner(st) != os.Geteuid() {
		return notPrivate("%s is not a directory of the user %d", path, os.Geteuid())
	}
	if err := checkParent(filepath.Dir(path)); err != nil {
		return err
	}
	return os.Chmod(path, 0o700)
}

// checkParent refuses a directory, or a symbolic link to one, whose entries a stranger can replace.
func checkParent(dir string) error {
	for _, stat := range []func(string) (os.FileInfo, error){os.Lstat, os.Stat} {
		st, err := stat(dir)
		if err != nil {
			return err
		}
		if uid := owner(st); uid != os.Geteuid() && uid != 0 {
			return notPrivate("%s belongs to user %d, who could replace what is in it", dir, uid)
		}
		if m := st.Mode(); m.IsDir() && m.Perm()&0o002 != 0 && m&os.ModeSticky == 0 {
			return notPrivate("everybody may replace what is in %s (its mode is %v)", dir, m)
		}
	}
	return nil
}

// owner returns a file's user id, or -1 where there is none.
func owner(st os.FileInfo) int {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return int(sys.Uid)
	}
	return -1
}

func notPrivate(format string, args ...any) error {
	return errkind.WithHint(errkind.New(api.KindPermission, format, args...),
		"give it to yourself alone or move it away, or point BANGER_ROOT to a directory of your own")
}

// RemoveDir removes a directory with the files that are left in it; it need not exist. It does not descend: it is for
// directories of banger's own, and what is below one of those is not.
func RemoveDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove what is left in a directory: %w", err)
		}
	}
	return os.Remove(dir)
}

// Allocated returns the bytes that the file at path takes on disk, which for a sparse file is less than its size.
func Allocated(path string) (int64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Blocks * 512, nil // st_blocks counts 512-byte units (stat(2))
}

// LockHolder returns the pid of the process that holds [Lock] of the file at path, as /proc/locks has it (proc_locks(5)).
// Kind not-found: nobody that can be seen from here.
func LockHolder(path string) (int, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0, err
	}
	inode := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(locks)) {
		if f := strings.Fields(line); len(f) > 5 && f[1] == "FLOCK" && f[5] == inode {
			return strconv.Atoi(f[4])
		}
	}
	return 0, errkind.New(api.KindNotFound, "nobody holds the lock %s", path)
}
