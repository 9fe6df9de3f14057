package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

func TestDoctor(t *testing.T) {
	d := fakedaemon.Start(t)
	d.Result(api.MethodDoctor, api.Doctor{Checks: []api.Check{
		{Name: "vmm", Status: "ok", Detail: "qemu 7.2.0"},
		{Name: "leftovers", Status: "warn", Detail: "one", Fix: "remove it"},
		{Name: "leftovers", Status: "warn", Detail: "two", Fix: "remove it"},
	}})
	t.Run("findings are a table, and each thing to do is a line", func(t *testing.T) {
		want := fmt.Sprintf(`CHECK      STATUS  DETAIL
daemon     ok      version v1.2.3, pid %d
vmm        ok      qemu 7.2.0
leftovers  warn    one
leftovers  warn    two
leftovers: remove it
`, fakedaemon.NoPID)
		if got := banger(t, d).ok("doctor").stdout; got != want {
			t.Errorf("got\n%s", got)
		}
		if got := banger(t, d).ok("doctor", "-q").stdout; got != "daemon\nvmm\nleftovers\nleftovers\n" {
			t.Errorf("got %q", got)
		}
		if got := banger(t, d).ok("doctor", "--format", "{{.Status}}").stdout; got != "ok\nok\nwarn\nwarn\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("--fix and --full are the daemon's to do", func(t *testing.T) {
		d.Result(api.MethodFix, api.Doctor{Checks: []api.Check{{Name: "leftovers", Status: "fixed", Detail: "one: removed"}}})
		if got := banger(t, d).ok("doctor", "--fix", "--full").stdout; !strings.Contains(got, "leftovers  fixed   one: removed") {
			t.Errorf("got %s", got)
		}
		var ask api.DoctorAsk
		if d.Params(api.MethodFix, &ask); !ask.Full {
			t.Error("the daemon was not asked for a full check")
		}
	})
	t.Run("a failure is status 1, and JSON is whole all the same", func(t *testing.T) {
		d.Result(api.MethodDoctor, api.Doctor{Checks: []api.Check{{Name: "vmm", Status: "fail", Detail: "not installed", Fix: "install it"}}})
		c := banger(t, d).fails(1, "1 failed", "doctor", "-o", "json")
		var checks []api.Check
		if err := json.Unmarshal([]byte(c.stdout), &checks); err != nil || len(checks) != 2 || checks[1].Fix != "install it" {
			t.Errorf("%v: %s", err, c.stdout)
		}
	})
	t.Run("a daemon of another version is a warning", func(t *testing.T) {
		d.Result(api.MethodPing, api.Ping{Protocol: api.ProtocolVersion, Version: "v1.0.0", PID: 77})
		d.Result(api.MethodDoctor, api.Doctor{})
		got := banger(t, d).ok("doctor").stdout
		if !strings.Contains(got, "daemon  warn    the daemon (pid 77) is of version v1.0.0, and this program of v1.2.3\ndaemon: restart it") {
			t.Errorf("got %s", got)
		}
	})
	t.Run("a daemon that answers and cannot check is an error", func(t *testing.T) {
		d.Error(api.MethodDoctor, errkind.New(api.KindInternal, "out of order"))
		banger(t, d).fails(70, "out of order", "doctor")
	})
}

func TestDoctorWithoutDaemon(t *testing.T) {
	bin := t.TempDir()
	put := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"banger", "bangerd", "banger-agent", "qemu"} {
		put(filepath.Join(bin, name), "#!/bin/sh\necho I do not start; exit 1\n", 0o755)
	}
	root := filepath.Join(t.TempDir(), "root")
	line := func(env map[string]string) *cmdline {
		c := banger(t, nil).env(map[string]string{"BANGER_ROOT": root, "BANGER_QEMU_BIN": filepath.Join(bin, "qemu")}).env(env)
		c.app.Executable = filepath.Join(bin, "banger")
		return c
	}
	// finds runs doctor, expects a status, and that the output has all of the texts.
	finds := func(t *testing.T, c *cmdline, status int, texts []string, args ...string) {
		t.Helper()
		if status == 0 {
			c = c.ok(append([]string{"doctor"}, args...)...)
		} else {
			c = c.fails(status, "failed", append([]string{"doctor"}, args...)...)
		}
		for _, text := range texts {
			if !strings.Contains(c.stdout, text) {
				t.Errorf("no %q in\n%s", text, c.stdout)
			}
		}
	}
	t.Run("before the first one, nothing is wrong but that it does not run", func(t *testing.T) {
		finds(t, line(nil), 0, []string{
			"daemon       warn    the banger daemon is not running", "directories  ok      none yet", "lock         ok", "installed    ok", "banger daemon start",
		})
	})
	t.Run("one that does not start is a failure with its last words", func(t *testing.T) {
		c := line(map[string]string{"BANGER_NO_START": "0"})
		finds(t, c, 1, []string{"daemon       fail    start the daemon", "I do not start", "bangerd.log"})
	})
	t.Run("directories that are open are found, and fixed", func(t *testing.T) {
		if err := os.Chmod(filepath.Join(root, "state"), 0o755); err != nil {
			t.Fatal(err)
		}
		finds(t, line(nil), 1, []string{"directories  fail    the directory " + root + "/state has mode 0755", "chmod 700"})
		finds(t, line(nil), 0, []string{"directories  fixed ", "made private"}, "--fix")
		finds(t, line(nil), 0, []string{"directories  ok "})
	})
	t.Run("a process that holds the lock and does not answer is named", func(t *testing.T) {
		lock, err := host.Lock(filepath.Join(root, "state/bangerd.lock"))
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		finds(t, line(nil), 1, []string{fmt.Sprintf("lock         fail    process %d holds", os.Getpid()), fmt.Sprintf("kill %d", os.Getpid())})
	})
	t.Run("a configuration that does not parse is found", func(t *testing.T) {
		put(filepath.Join(root, "etc/config.toml"), "vmn = 1\n", 0o600)
		defer os.Remove(filepath.Join(root, "etc/config.toml"))
		finds(t, line(nil), 1, []string{"config       fail", "vmn"})
	})
	t.Run("programs that are missing are found", func(t *testing.T) {
		t.Setenv("PATH", bin)
		for _, name := range []string{"bangerd", "banger-agent", "qemu"} {
			if err := os.Remove(filepath.Join(bin, name)); err != nil {
				t.Fatal(err)
			}
		}
		finds(t, line(nil), 1, []string{
			`program "bangerd" is not installed`, "there is no guest agent", "QEMU is not installed", "mmdebstrap", "qemu_bin", "beside bangerd",
		})
	})
}
