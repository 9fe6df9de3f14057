package preflight

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/host"
	"golang.org/x/sys/unix"
)

// StartReserve is how many bytes a VM takes at its very beginning besides its disks: initramfs, logs, the first blocks written.
const StartReserve = 64 << 20

// Space tells whether dir's file system has room for need bytes. With less than low free it warns.
func Space(dir string, need, low int64) (string, []Problem) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Failed(&os.PathError{Op: "statfs", Path: dir, Err: err})
	}
	const fix = "delete VMs or images that are not needed, or move banger to another disk with BANGER_ROOT"
	free := int64(st.Bavail) * st.Bsize
	switch {
	case free < need:
		return "", []Problem{{Detail: fmt.Sprintf("no space left on device: %d MiB are free in %s, and %d MiB are needed to begin", free>>20, dir, need>>20), Fix: fix}}
	case free < low:
		return "", []Problem{{Detail: fmt.Sprintf("only %d MiB are free in %s", free>>20, dir), Fix: fix, Minor: true}}
	}
	return fmt.Sprintf("%.1f GiB free in %s", float64(free)/(1<<30), dir), nil
}

// Directories asks whether banger's directories are there and private, and so are the files that must be. Mending makes and
// restricts them. Before the first daemon there are none, which is no problem.
func Directories(p config.Paths) Check {
	return Check{Name: "directories", Ask: func(context.Context) (string, []Problem) {
		if _, err := os.Lstat(p.State); errors.Is(err, fs.ErrNotExist) {
			return "none yet; the first daemon makes them below " + p.State, nil
		}
		var found []Problem
		for _, dir := range p.Dirs() {
			found = append(found, directory(dir)...)
		}
		for _, path := range []string{p.DB(), p.SSHKey(), p.DaemonLog()} {
			found = append(found, private(path)...)
		}
		return "private, all below " + p.State, found
	}}
}

const orFix = ", or have it done: `banger doctor --fix`"

func directory(dir string) []Problem {
	mend := func(context.Context) (string, error) { return "made private, mode 0700", host.PrivateDir(dir) }
	st, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []Problem{{Detail: "the directory " + dir + " is missing", Fix: "make it: `mkdir -m 700 " + dir + "`" + orFix, Minor: true, Mend: mend}}
	case err != nil:
		_, found := Failed(err)
		return found
	case !st.IsDir():
		return []Problem{{Detail: dir + " is not a directory", Fix: "move it away"}}
	}
	if uid := st.Sys().(*syscall.Stat_t).Uid; int(uid) != os.Geteuid() {
		return []Problem{{
			Detail: fmt.Sprintf("the directory %s belongs to user %d, and banger runs as %d", dir, uid, os.Geteuid()),
			Fix:    "give it back with chown, or point BANGER_ROOT to a directory of your own",
		}}
	}
	if mode := st.Mode().Perm(); mode != 0o700 {
		return []Problem{{
			Detail: fmt.Sprintf("the directory %s has mode %04o, and secrets are in it", dir, mode), Fix: "restrict it: `chmod 700 " + dir + "`" + orFix, Mend: mend,
		}}
	}
	return nil
}

// private tells whether the file at path, which need not exist, can be read by others.
func private(path string) []Problem {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		_, found := Failed(err)
		return found
	}
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return []Problem{{
			Detail: fmt.Sprintf("the file %s has mode %04o, and is not for others", path, mode), Fix: "restrict it: `chmod 600 " + path + "`" + orFix,
			Mend: func(context.Context) (string, error) { return "made private, mode 0600", os.Chmod(path, 0o600) },
		}}
	}
	return nil
}

// Programs asks whether the programs are installed that images and kernels are made with. VMs of those that are there run
// without.
func Programs() Check {
	return Check{Name: "programs", Ask: func(context.Context) (string, []Problem) {
		var missing []string
		for _, p := range []string{"mmdebstrap", "mke2fs", "e2fsck", "dpkg-deb", "apt-get", "depmod"} {
			if _, err := host.LookPath(p); err != nil {
				missing = append(missing, p)
			}
		}
		if len(missing) > 0 {
			return "", []Problem{{
				Detail: "not installed, but needed to build images and import kernels: " + strings.Join(missing, ", "),
				Fix:    "install them (on Debian: mmdebstrap, e2fsprogs, dpkg, apt, kmod)", Minor: true,
			}}
		}
		return "everything that images and kernels are made with is installed", nil
	}}
}
