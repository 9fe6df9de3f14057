package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
)

func TestStrangeDaemons(t *testing.T) {
	if testing.Short() {
		t.Skip("short: runs the built programs")
	}
	t.Run("a daemon of another protocol is named with its version, and the hint restarts it", func(t *testing.T) {
		d := fakedaemon.Start(t)
		d.Result(api.MethodPing, api.Ping{Protocol: 99, Version: "v9.9", PID: 7})
		house{root: d.Root, bin: shared.bin}.start(t, "vm", "list").ends(78,
			fmt.Sprintf(`^banger: the daemon \(version v9.9, pid 7\) speaks protocol 99, this program %d$`, api.ProtocolVersion),
			"^hint: this program is older than the daemon: .* or stop it with `banger daemon stop`")
	})
	t.Run("a socket that another user serves is not used", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root: listens as another user")
		}
		h := shared.fresh(t)
		run := filepath.Join(h.root, "run")
		if err := os.MkdirAll(run, 0o700); err != nil {
			t.Fatal(err)
		}
		listenAs(t, 65534, filepath.Join(run, "bangerd.sock"))
		h.fails(t, 77, `^banger: .* is served by user 65534, not by you`, "vm", "list")
	})
	t.Run("a second daemon on the same directory is refused", func(t *testing.T) {
		h := shared.fresh(t)
		pid := h.must(t, "daemon", "start")
		second := h.command()
		second.Path = filepath.Join(h.bin, "bangerd")
		out, err := second.CombinedOutput()
		if second.ProcessState.ExitCode() != 75 || !strings.Contains(string(out), "another daemon uses "+h.root) || !strings.Contains(string(out), "\nhint: ") {
			t.Errorf("%v\n%s", err, out)
		}
		if again := h.must(t, "daemon", "status", "--format", "{{.PID}}"); again != pid {
			t.Errorf("pid %s, was %s", again, pid)
		}
	})
	t.Run("directories that a stranger can replace are refused", func(t *testing.T) {
		for what, prepare := range map[string]func(root string) error{
			"run is a link":                  func(root string) error { return os.Symlink(t.TempDir(), filepath.Join(root, "run")) },
			"everybody may write the parent": func(root string) error { return os.Chmod(root, 0o777) },
			"the parent is another user's":   func(root string) error { return os.Chown(root, 65534, 65534) },
		} {
			if strings.Contains(what, "another") && os.Geteuid() != 0 {
				t.Log("skip: needs root to give a directory away")
				continue
			}
			h := shared.fresh(t)
			if err := prepare(h.root); err != nil {
				t.Fatal(err)
			}
			h.fails(t, 77, "^banger: prepare banger's directories: .*"+h.root, "vm", "list")
		}
	})
	t.Run("without a daemon --no-start says that there is none", func(t *testing.T) {
		h := shared.fresh(t)
		h.fails(t, 69, "^banger: the banger daemon is not running", "--no-start", "vm", "list")
	})
}

// listenAs serves a Unix socket that, to its clients, is uid's: the kernel takes the credentials of whoever calls listen(2)
// (unix(7), SO_PEERCRED).
func listenAs(t *testing.T, uid int, path string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { f.Close() })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	listening := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, as the other user
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			listening <- errno
			return
		}
		listening <- unix.Listen(fd, 1)
	}()
	if err := <-listening; err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}
