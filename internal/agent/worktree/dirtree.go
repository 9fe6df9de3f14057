package worktree

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// dirTree makes and opens directories below a root, and keeps the last one with its parents open: files come sorted, so
// that a directory is entered once.
type dirTree struct {
	root  int
	names []string
	fds   []int // of names, each below the one before
}

var errOutside = errkind.New(api.KindInvalid, "the name leads out of the workspace")

// isName reports whether name is one step down.
func isName(name string) bool {
	return name != "" && name != "." && name != ".." && strings.IndexByte(name, '/') < 0
}

// enter returns the descriptor of the directory rel, which it makes if need be. It is valid until the next call. A
// symbolic link on the way is an error.
func (t *dirTree) enter(rel string) (int, error) {
	var names []string
	if rel != "" {
		names = strings.Split(rel, "/")
	}
	keep := 0
	for keep < len(names) && keep < len(t.names) && names[keep] == t.names[keep] {
		keep++
	}
	t.leave(keep)
	for _, name := range names[keep:] {
		if !isName(name) {
			return -1, errOutside
		}
		parent := t.top()
		if err := unix.Mkdirat(parent, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, err
		}
		fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
			return -1, errOutside
		}
		if err != nil {
			return -1, err
		}
		t.names, t.fds = append(t.names, name), append(t.fds, fd)
	}
	return t.top(), nil
}

func (t *dirTree) top() int {
	if len(t.fds) == 0 {
		return t.root
	}
	return t.fds[len(t.fds)-1]
}

// leave closes all but the first keep directories.
func (t *dirTree) leave(keep int) {
	for _, fd := range t.fds[keep:] {
		unix.Close(fd)
	}
	t.names, t.fds = t.names[:keep], t.fds[:keep]
}

// close may be called again.
func (t *dirTree) close() {
	t.leave(0)
	if t.root >= 0 {
		unix.Close(t.root)
		t.root = -1
	}
}
