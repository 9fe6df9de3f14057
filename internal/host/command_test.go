package host

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestGroup(t *testing.T) {
	t.Run("what a program started does not outlive it, and its signals to its group do not reach us", func(t *testing.T) {
		pidFile := filepath.Join(t.TempDir(), "pid")
		script := `(trap "" HUP; exec sleep 1000) >/dev/null 2>&1 & echo $! >"$0"; kill -HUP 0`
		err := Run(t.Context(), Command{Argv: []string{"sh", "-c", script, pidFile}, Group: true})
		if err == nil || !strings.Contains(err.Error(), "hangup") {
			t.Errorf("the shell hung up its own group: got %v", err)
		}
		b, err := os.ReadFile(pidFile)
		if err != nil {
			t.Fatal(err)
		}
		child, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.PidfdOpen(child, 0)
		if errors.Is(err, unix.ESRCH) {
			return // gone, and reaped
		}
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		ended := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(ended, 10_000); n != 1 {
			t.Errorf("child %d lives: %v", child, err)
			unix.Kill(child, unix.SIGKILL)
		}
	})
}
