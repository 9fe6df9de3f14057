package host

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

func TestPrivateDir(t *testing.T) {
	// parent returns a directory with this mode, whatever the umask.
	parent := func(t *testing.T, mode os.FileMode) string {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "parent")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	refused := func(t *testing.T, err error) {
		t.Helper()
		if !errkind.Is(err, api.KindPermission) || errkind.Hint(err) == "" {
			t.Fatalf("got %v", err)
		}
	}
	t.Run("what it makes, and what was there, is private", func(t *testing.T) {
		dir := filepath.Join(parent(t, 0o755), "a", "b")
		for range 2 {
			if err := PrivateDir(dir); err != nil {
				t.Fatal(err)
			}
			if st, err := os.Stat(dir); err != nil || st.Mode() != os.ModeDir|0o700 {
				t.Fatalf("%v %v", st.Mode(), err)
			}
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("a parent that everybody may write is refused, and a sticky one is not", func(t *testing.T) {
		refused(t, PrivateDir(filepath.Join(parent(t, 0o777), "d")))
		if err := PrivateDir(filepath.Join(parent(t, 0o777|os.ModeSticky), "d")); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a symbolic link is refused, and one of the caller's as parent is not", func(t *testing.T) {
		dir := parent(t, 0o755)
		link := filepath.Join(dir, "link")
		if err := os.Symlink(t.TempDir(), link); err != nil {
			t.Fatal(err)
		}
		refused(t, PrivateDir(link))
		if err := PrivateDir(filepath.Join(link, "d")); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a parent, or a link to one, of another user is refused", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root: gives files away")
		}
		const stranger = 65534
		dir := parent(t, 0o755)
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(parent(t, 0o755), link); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{dir, link} {
			if err := os.Lchown(path, stranger, stranger); err != nil {
				t.Fatal(err)
			}
			refused(t, PrivateDir(filepath.Join(path, "d")))
		}
	})
}

func TestLockHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	lock, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := LockHolder(path); err != nil || pid != os.Getpid() {
		t.Errorf("held: got %d, %v", pid, err)
	}
	lock.Close()
	if pid, err := LockHolder(path); !errkind.Is(err, api.KindNotFound) {
		t.Errorf("free: got %d, %v", pid, err)
	}
}

func TestRemoveDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	if err := os.MkdirAll(filepath.Join(dir, "below"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "below", "mine"), "")
	write(t, filepath.Join(dir, "file"), "")
	t.Run("it does not descend", func(t *testing.T) {
		if err := RemoveDir(dir); err == nil {
			t.Error("no error")
		}
		if _, err := os.Stat(filepath.Join(dir, "below", "mine")); err != nil {
			t.Error(err)
		}
	})
	t.Run("it removes files, and nothing when there is nothing", func(t *testing.T) {
		if err := os.RemoveAll(filepath.Join(dir, "below")); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := RemoveDir(dir); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Error(err)
		}
	})
}
