package cli_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/host"
)

// testDaemon is this test binary in the part of bangerd: it notes its start, serves daemon.ping and daemon.stop, and ends.
func testDaemon() int {
	fmt.Println("bangerd says something")
	if os.Getenv("BANGER_TEST_DAEMON") == "dies" {
		fmt.Println("config.toml:3: no key \"vmn\"")
		return 1
	}
	paths, err := config.FindPaths(os.LookupEnv)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	f, err := os.OpenFile(filepath.Join(paths.Root, "starts"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Fprintln(f, os.Getpid())
	l, err := net.Listen("unix", paths.Socket())
	if err != nil {
		fmt.Println(err)
		return 1
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return 1
		}
		var req api.Request
		if api.ReadLine(bufio.NewReader(conn), &req) == nil {
			switch req.Method {
			case api.MethodPing:
				api.Reply(conn, req, api.Ping{Protocol: api.ProtocolVersion, PID: os.Getpid()}, nil)
			case api.MethodStop:
				api.Reply(conn, req, api.Empty{}, nil)
				os.Remove(paths.Socket())
				return 0
			}
		}
		conn.Close()
	}
}

// startable returns a root directory, and a function that makes command lines which may start a daemon there.
func startable(t *testing.T, how string) (root string, line func() *cmdline) {
	root, err := os.MkdirTemp("", "bng")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(root, "bangerd")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BANGER_TEST_DAEMON", how)
	t.Setenv("BANGER_ROOT", root)
	return root, func() *cmdline {
		c := banger(t, nil).env(map[string]string{"BANGER_ROOT": root, "BANGER_NO_START": ""})
		c.app.Executable = filepath.Join(root, "banger")
		return c
	}
}

func TestDaemonOnDemand(t *testing.T) {
	t.Run("of many command lines at once one starts the daemon and all use it", func(t *testing.T) {
		root, line := startable(t, "runs")
		lines := make([]*cmdline, 12)
		for i := range lines {
			lines[i] = line()
		}
		var wg sync.WaitGroup
		for _, c := range lines {
			wg.Go(func() { c.run("daemon", "start") })
		}
		wg.Wait()
		starts, err := os.ReadFile(filepath.Join(root, "starts"))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range lines {
			if c.code != 0 || c.stdout != string(starts) {
				t.Errorf("exit status %d, pid %q, want %q; %s", c.code, c.stdout, starts, c.stderr)
			}
		}
		line().ok("daemon", "stop")
		pid, _ := strconv.Atoi(strings.TrimSpace(string(starts)))
		if _, err := host.StartTime(pid); err == nil {
			t.Errorf("the daemon %d still runs after stop", pid)
		}
		if got := line().ok("daemon", "stop"); !strings.Contains(got.stderr, "was not running") {
			t.Errorf("got %q", got.stderr)
		}
	})
	t.Run("a daemon that dies is an error with its last words", func(t *testing.T) {
		_, line := startable(t, "dies")
		c := line().fails(69, "start the daemon: the daemon ended at once", "ps")
		if !strings.Contains(c.stderr, `no key "vmn"`) || !strings.Contains(c.stderr, "hint: the whole log is in") {
			t.Errorf("got %s", c.stderr)
		}
	})
	t.Run("without bangerd the error says where it was looked for", func(t *testing.T) {
		root, line := startable(t, "runs")
		os.Remove(filepath.Join(root, "bangerd"))
		t.Setenv("PATH", root)
		c := line().fails(69, `program "bangerd" is not installed`, "ps")
		if !strings.Contains(c.stderr, "hint: install bangerd beside") {
			t.Errorf("got %s", c.stderr)
		}
	})
	t.Run("an interrupt ends the waiting for a daemon", func(t *testing.T) {
		_, line := startable(t, "runs")
		c := line()
		paths, err := c.app.Paths()
		if err != nil {
			t.Fatal(err)
		}
		if err := paths.Make(); err != nil {
			t.Fatal(err)
		}
		lock, err := os.OpenFile(paths.Socket()+".start", os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		c.signal(syscall.SIGINT)
		c.fails(130, "interrupted by SIGINT", "ps")
	})
}

func TestNotRunning(t *testing.T) {
	want := "banger: the banger daemon is not running (no one listens on %s)\nhint: start it with `banger daemon start`\n"
	root := filepath.Join(os.TempDir(), "bng-nowhere")
	for _, args := range [][]string{{"--no-start", "ps"}, {"daemon", "status"}, {"vm", "create"}} {
		c := banger(t, nil).env(map[string]string{"BANGER_ROOT": root}).run(args...)
		if c.code != 69 || c.stderr != fmt.Sprintf(want, root+"/run/bangerd.sock") {
			t.Errorf("%q: exit status %d, %s", args, c.code, c.stderr)
		}
	}
	if _, err := os.Stat(root); err == nil {
		t.Error("a command that starts no daemon has made its directories")
	}
}

func TestAnotherProtocol(t *testing.T) {
	d := fakedaemon.Start(t)
	d.Result(api.MethodPing, api.Ping{Protocol: 7, Version: "v9", PID: fakedaemon.NoPID})
	d.Result(api.MethodStop, api.Empty{})
	d.Result(api.MethodInfo, api.Info{Ping: api.Ping{Protocol: 7, Version: "v9"}, StartedAt: "2026-01-02T03:04:05Z"})
	c := banger(t, d).fails(78, "speaks protocol 7, this program 1", "ps")
	if !strings.Contains(c.stderr, "hint: this program is older than the daemon") {
		t.Errorf("got %s", c.stderr)
	}
	if got := banger(t, d).ok("daemon", "status").stdout; !strings.Contains(got, "7 (this program: 1; stop the daemon to use it)") {
		t.Errorf("got %s", got)
	}
	banger(t, d).ok("daemon", "stop")
}

func TestDaemonStatus(t *testing.T) {
	d := fakedaemon.Start(t)
	d.Result(api.MethodInfo, api.Info{Ping: api.Ping{Protocol: 1, Version: "v1.2.3", PID: 77}, StartedAt: "not a time",
		StateDir: "/s", RunDir: "/r", CacheDir: "/c", Config: "/e/config.toml", Log: "/s/bangerd.log", Running: 1, VMs: 3,
		VMM: "qemu/tcg", VMMReason: "KVM here is a software variant", Cloner: "qcow2", Network: "user", NetworkReason: "configured"})
	want := `State:          running
PID:            77
Version:        v1.2.3
Protocol:       1
Since:          not a time
VMs:            1 running of 3
VMM:            qemu/tcg
  because:      KVM here is a software variant
Disk cloner:    qcow2
Network:        user
  because:      configured
State files:    /s
Sockets:        /r
Cache:          /c
Configuration:  /e/config.toml
Log:            /s/bangerd.log
`
	if got := banger(t, d).ok("daemon", "status").stdout; got != want {
		t.Errorf("got\n%s", got)
	}
	for want, flag := range map[string][]string{"77\n": {"-q"}, "/s\n": {"--format", "{{.StateDir}}"}} {
		if got := banger(t, d).ok(append([]string{"daemon", "status"}, flag...)...).stdout; got != want {
			t.Errorf("%q: got %q", flag, got)
		}
	}
	if got := banger(t, d).ok("daemon", "status", "-o", "yaml").stdout; !strings.Contains(got, "state_dir: /s\n") {
		t.Errorf("got %s", got)
	}
}

func TestDaemonMetrics(t *testing.T) {
	d := fakedaemon.Start(t)
	d.Result(api.MethodMetrics, api.Metrics{Text: "banger_vms{state=\"running\"} 1\n"})
	if got := banger(t, d).ok("daemon", "metrics").stdout; got != "banger_vms{state=\"running\"} 1\n" {
		t.Errorf("got %q", got)
	}
	c := banger(t, nil).env(map[string]string{"BANGER_ROOT": t.TempDir()})
	c.fails(69, "not running", "daemon", "metrics")
}

func TestDaemonLogs(t *testing.T) {
	root := t.TempDir()
	line := func() *cmdline { return banger(t, nil).env(map[string]string{"BANGER_ROOT": root}) }
	line().fails(66, "the daemon has no log yet", "daemon", "logs")
	file := filepath.Join(root, "state", "bangerd.log")
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for i := range 10_000 { // more than one chunk of the backward search
		fmt.Fprintf(&text, "line %d\n", i)
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := line().ok("daemon", "logs").stdout; got != text.String() {
		t.Errorf("got %d bytes of %d", len(got), text.Len())
	}
	if got := line().ok("daemon", "logs", "--tail", "2").stdout; got != "line 9998\nline 9999\n" {
		t.Errorf("got %q", got)
	}
	if got := line().ok("daemon", "logs", "-n", "9000").stdout; !strings.HasPrefix(got, "line 1000\n") {
		t.Errorf("got %.20q", got)
	}
	if got := line().ok("daemon", "logs", "-n", "99999").stdout; got != text.String() {
		t.Errorf("got %d bytes of %d", len(got), text.Len())
	}
	t.Run("follow goes on until the interrupt", func(t *testing.T) {
		c := line()
		seen := &waitFor{want: "and then\n", found: make(chan struct{})}
		c.app.Out = seen
		go func() {
			<-seen.after("line 9999\n")
			f, _ := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
			fmt.Fprintln(f, "and then")
			f.Close()
			<-seen.found
			c.signal(syscall.SIGTERM)
		}()
		if c.run("daemon", "logs", "-f", "-n", "1"); c.code != 143 {
			t.Errorf("exit status %d: %s", c.code, c.stderr)
		}
	})
}

// waitFor is an output that tells when it has seen some text.
type waitFor struct {
	mu    sync.Mutex
	text  strings.Builder
	want  string
	found chan struct{}
	more  map[string]chan struct{}
}

func (w *waitFor) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	if w.want != "" && strings.Contains(w.text.String(), w.want) {
		close(w.found)
		w.want = ""
	}
	for text, c := range w.more {
		if strings.Contains(w.text.String(), text) {
			close(c)
			delete(w.more, text)
		}
	}
	return len(p), nil
}

func (w *waitFor) after(text string) chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := make(chan struct{})
	if strings.Contains(w.text.String(), text) {
		close(c)
		return c
	}
	if w.more == nil {
		w.more = map[string]chan struct{}{}
	}
	w.more[text] = c
	return c
}

func (w *waitFor) String() string { w.mu.Lock(); defer w.mu.Unlock(); return w.text.String() }

func TestConfig(t *testing.T) {
	root := t.TempDir()
	line := func() *cmdline {
		return banger(t, nil).env(map[string]string{"BANGER_ROOT": root, "BANGER_VMM": "qemu"})
	}
	if got := line().ok("config", "path").stdout; got != root+"/etc/config.toml\n" {
		t.Errorf("got %q", got)
	}
	got := line().ok("config", "show").stdout
	if !strings.Contains(got, "environment BANGER_VMM") || !strings.Contains(got, "vm_defaults.memory") {
		t.Errorf("got\n%s", got)
	}
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc", "config.toml"), []byte("vmn = \"qemu\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	line().fails(64, "vmn", "config", "show")
	t.Run("a running daemon says what it runs with", func(t *testing.T) {
		d := fakedaemon.Start(t)
		d.Result(api.MethodConfig, api.ConfigList{Values: []api.ConfigValue{{Key: "vmm", Value: "auto", Origin: "default"}}})
		if got := banger(t, d).ok("config", "show").stdout; got != "KEY  VALUE  ORIGIN\nvmm  auto   default\n" {
			t.Errorf("got\n%s", got)
		}
		if got := banger(t, d).ok("config", "show", "-q", "-o", "json", "--format", "{{.Key}}={{.Value}}").stdout; got != "vmm=auto\n" {
			t.Errorf("got %q", got)
		}
	})
}
