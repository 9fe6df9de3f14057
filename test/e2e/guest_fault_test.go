package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// pid returns the pid of a VM's QEMU.
func (h house) pid(t *testing.T, vm string) int {
	t.Helper()
	pid, err := strconv.Atoi(h.field(t, vm, "{{.PID}}"))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// file makes a sparse file of size bytes.
func file(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "big")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGuestFaults(t *testing.T) {
	h := guests(t)
	h.must(t, "vm", "create", "--start", "--name", "faulty", "--memory", "256M")
	defer h.must(t, "vm", "delete", "--force", "faulty")
	failed := func(t *testing.T) {
		t.Helper()
		eventually(t, "state failed", func() bool { return h.field(t, "faulty", "{{.State}}") == "failed" })
		h.must(t, "vm", "start", "faulty")
	}
	const gone = "^banger: .*the connection was cut"

	t.Run("a guest with a full disk still runs commands, and a copy says that the disk is full", func(t *testing.T) {
		h.must(t, "exec", "faulty", "--", "sh", "-c", "! fallocate -l 1T /root/fill")
		h.fails(t, 76, "^banger: copy into the guest: .*no space left on device", "cp", file(t, 64<<20), "faulty:/root/big")
		if out := h.must(t, "exec", "faulty", "--", "sh", "-c", "test -e /root/big || echo alive and nothing by halves"); !strings.HasPrefix(out, "alive") {
			t.Errorf("got %q", out)
		}
		h.must(t, "exec", "faulty", "--", "rm", "/root/fill")
		h.must(t, "cp", "guest_fault_test.go", "faulty:/root/small")
	})
	t.Run("exec in a VM whose QEMU is killed ends with 69, and says that the connection was cut", func(t *testing.T) {
		c := h.start(t, "exec", "faulty", "--", "sh", "-c", "echo begun; exec sleep 1000")
		c.prints("begun")
		kill9(t, h.pid(t, "faulty"))
		c.ends(69, gone, "^hint: ")
		failed(t)
	})
	t.Run("so do copies, which leave no half file on the host", func(t *testing.T) {
		in := h.start(t, "cp", file(t, 64<<30), "faulty:/root/big")
		eventually(t, "the copy is under way", func() bool {
			_, err := h.banger("exec", "faulty", "--", "test", "-s", "/root/big")
			return err == nil
		})
		h.must(t, "exec", "faulty", "--", "truncate", "-s", "64G", "/root/huge")
		dir := t.TempDir()
		out := h.start(t, "cp", "faulty:/root/huge", dir)
		eventually(t, "the copy is under way", func() bool {
			st, err := os.Stat(filepath.Join(dir, "huge"))
			return err == nil && st.Size() > 0
		})
		kill9(t, h.pid(t, "faulty"))
		in.ends(69, "^banger: copy into the guest: the connection was cut", "^hint: ")
		out.ends(69, gone, "^hint: ")
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left: %v %v", left, err)
		}
		failed(t)
		h.must(t, "exec", "faulty", "--", "rm", "-f", "/root/big", "/root/huge")
	})
	t.Run("a daemon that is stopped cuts exec off, and the VM runs on", func(t *testing.T) {
		boot := h.must(t, "exec", "faulty", "--", "cat", "/proc/sys/kernel/random/boot_id")
		c := h.start(t, "exec", "faulty", "--", "sh", "-c", "echo begun; exec sleep 1000")
		c.prints("begun")
		h.must(t, "daemon", "stop")
		c.ends(69, gone, "^hint: ")
		if again := h.must(t, "exec", "faulty", "--", "cat", "/proc/sys/kernel/random/boot_id"); again != boot {
			t.Errorf("boot id %q, was %q", again, boot)
		}
		if out, err := h.banger("exec", "faulty", "--", "pgrep", "sleep"); err == nil {
			t.Errorf("the command that lost its client still runs: %s", out)
		}
	})
	t.Run("a VM that another client uses is not deleted, and with --force that client is cut off", func(t *testing.T) {
		h.must(t, "vm", "create", "--start", "--name", "used", "--memory", "128M")
		c := h.start(t, "exec", "used", "--", "sh", "-c", "echo begun; exec sleep 1000")
		c.prints("begun")
		h.fails(t, 78, `^banger: vm "used" is running`, "vm", "delete", "used")
		h.must(t, "vm", "delete", "--force", "used")
		c.ends(69, gone, "^hint: ")
	})
}

func TestNoGuest(t *testing.T) {
	h := guests(t)
	t.Run("an init that does not exist is named by the console in the error, and nothing is left", func(t *testing.T) {
		h.fails(t, 76, `start init: "/nonexistent" of the image: no such file`,
			"vm", "create", "--start", "--name", "noinit", "--memory", "128M", "--init", "/nonexistent")
		h.empty(t)
	})
	t.Run("a missing QEMU is said before anything is made", func(t *testing.T) {
		h.banger("daemon", "stop") //nolint:errcheck // it may not run
		defer h.must(t, "daemon", "stop")
		t.Setenv("BANGER_QEMU_BIN", "/nonexistent/qemu")
		h.fails(t, 69, `QEMU is not installed: no program "/nonexistent/qemu"`, "vm", "create", "--start", "--name", "noqemu")
		h.empty(t)
		out, err := h.banger("doctor")
		if err == nil || !strings.Contains(out, "QEMU is not installed") {
			t.Errorf("doctor: %v\n%s", err, out)
		}
	})
}

func TestManyCreates(t *testing.T) {
	h := guests(t)
	const many = 20
	all := func(args func(n int) []string) []*client {
		clients := make([]*client, many)
		for n := range clients {
			clients[n] = h.start(t, append([]string{"vm", "create", "--quiet"}, args(n)...)...)
		}
		return clients
	}
	t.Run("of twenty creates with one name at once one wins, and the others say that it exists", func(t *testing.T) {
		won := 0
		for _, c := range all(func(int) []string { return []string{"--name", "same"} }) {
			if c.cmd.Wait() == nil {
				won++
				continue
			}
			c.ends(73, `^banger: .*"same" (exists|is taken)`, "^hint: ")
		}
		if won != 1 {
			t.Errorf("%d have won", won)
		}
		h.must(t, "vm", "delete", "same")
		h.empty(t)
	})
	t.Run("twenty with names of their own all succeed, six of them with --start, and an id's ambiguous prefix lists them", func(t *testing.T) {
		names := []string{"vm", "delete", "--force"}
		for n, c := range all(func(n int) []string {
			args := []string{"--name", fmt.Sprint("many-", n), "--memory", "128M"}
			if n < 6 {
				args = append(args, "--start")
			}
			return args
		}) {
			c.ends(0)
			names = append(names, fmt.Sprint("many-", n))
		}
		if running := strings.Count(h.must(t, "vm", "list", "--format", "{{.State}}"), "running"); running != 6 {
			t.Errorf("%d run", running)
		}
		// Of more ids than there are hexadecimal digits two begin alike.
		first := map[byte]string{}
		for line := range strings.Lines(h.must(t, "vm", "list", "--format", "{{.ID}} {{.Name}}")) {
			id, name, _ := strings.Cut(strings.TrimSpace(line), " ")
			if other, ok := first[id[0]]; ok {
				h.fails(t, 64, fmt.Sprintf("^banger: .*(%s.*%s|%[2]s.*%[1]s)", other, name), "vm", "show", id[:1])
				break
			}
			first[id[0]] = name
		}
		h.must(t, names...)
		h.empty(t)
	})
}
