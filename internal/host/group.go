package host

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"golang.org/x/sys/unix"
)

// GroupID returns the id of the group called name. One that does not exist is of kind not-found.
func GroupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if errors.As(err, new(user.UnknownGroupError)) {
		return 0, errkind.New(api.KindNotFound, "there is no group %q", name)
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// GroupDir makes path a directory of the caller's that the members of the group may enter and list, and nobody else. One that
// exists must be the caller's own; the group does not lose it for a moment.
func GroupDir(path string, gid int) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = PrivateDir(path)
	case err == nil:
		if sys, ok := st.Sys().(*syscall.Stat_t); !st.IsDir() || !ok || int(sys.Uid) != os.Geteuid() {
			err = errkind.WithHint(errkind.New(api.KindPermission, "%s is not a directory of the user %d", path, os.Geteuid()), "move it away")
		}
	}
	if err != nil {
		return err
	}
	return errors.Join(os.Chown(path, -1, gid), os.Chmod(path, 0o750))
}

// MayEnter reports whether path is a directory that the caller, by its effective ids, may enter.
func MayEnter(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir() && unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS) == nil
}
