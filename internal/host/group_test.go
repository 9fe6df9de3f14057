package host

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

func TestGroupID(t *testing.T) {
	if gid, err := GroupID("root"); err != nil || gid != 0 {
		t.Errorf("root is %d (%v)", gid, err)
	}
	if _, err := GroupID("no-such-group"); !errkind.Is(err, api.KindNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestGroupDir(t *testing.T) {
	gid := os.Getegid()
	if os.Geteuid() == 0 {
		gid = 4242 // root may give it to any group
	}
	dir := filepath.Join(t.TempDir(), "run")
	for range 2 {
		if err := GroupDir(dir, gid); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if got := int(st.Sys().(*syscall.Stat_t).Gid); got != gid || st.Mode().Perm() != 0o750 {
			t.Errorf("group %d, mode %v", got, st.Mode())
		}
	}
	t.Run("a link or a file in its place is refused", func(t *testing.T) {
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(dir, link); err != nil {
			t.Fatal(err)
		}
		if err := GroupDir(link, gid); !errkind.Is(err, api.KindPermission) {
			t.Errorf("got %v", err)
		}
	})
	if !MayEnter(dir) || MayEnter(filepath.Join(dir, "none")) || MayEnter("/etc/passwd") {
		t.Error("who may enter what is wrong")
	}
}
