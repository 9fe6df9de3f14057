package cli_test

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
	"github.com/banger-vm/banger/internal/errkind"
)

func web() api.VM {
	return api.VM{ID: "aaaaaaaaaaaa", Name: "web", State: "running", Image: "debian", ImageID: "bbbbbbbbbbbb", Kernel: "cloud",
		KernelID: "cccccccccccc", VMM: "auto", Engine: "qemu/tcg", Init: "agent", VCPU: 1, MemMiB: 1536, RootSize: 2 << 30,
		DiskSize: 1 << 30, NAT: true, Address: "10.0.2.15/24", PID: 77, Created: time.Now().Add(-3 * time.Hour)}
}

// vms scripts list and get of these VMs.
func vms(d *fakedaemon.Daemon, all ...api.VM) {
	d.Result(api.MethodVMList, api.VMList{VMs: all})
	d.On(api.MethodVMGet, func(c *fakedaemon.Call) {
		var p api.Ref
		c.Decode(&p)
		for _, v := range all {
			if v.Name == p.Ref || strings.HasPrefix(v.ID, p.Ref) {
				c.Reply(v)
				return
			}
		}
		c.Fail(errkind.WithHint(errkind.New(api.KindNotFound, "no VM %q", p.Ref), "see `banger vm list`"))
	})
}

func TestVMList(t *testing.T) {
	d := fakedaemon.Start(t)
	db := api.VM{ID: "dddddddddddd", Name: "db", State: "stopped", Image: "debian", VCPU: 2, MemMiB: 512, Created: time.Now().Add(-72 * time.Hour),
		Conditions: []api.Condition{{Type: "network"}}, Workspace: &api.Workspace{GuestPath: "/root/site"}}
	vms(d, web(), db)
	want := `NAME  ID            STATE              IMAGE   VCPU  MEMORY  ADDRESS       WORKSPACE   AGE
web   aaaaaaaaaaaa  running            debian  1     1.5G    10.0.2.15/24  -           3h
db    dddddddddddd  stopped (network)  debian  2     512M    -             /root/site  3d
`
	for _, args := range [][]string{{"ps"}, {"vm", "list"}, {"vm", "ls"}} {
		if diff := cmp.Diff(want, banger(t, d).ok(args...).stdout); diff != "" {
			t.Errorf("%q: %s", args, diff)
		}
	}
	for want, args := range map[string][]string{
		"web\ndb\n":          {"-q"},
		"web\n":              {"--running", "-q"},
		"web 1536\ndb 512\n": {"--format", "{{.Name}} {{.MemMiB}}"},
	} {
		if got := banger(t, d).ok(append([]string{"ps"}, args...)...).stdout; got != want {
			t.Errorf("%q: got %q", args, got)
		}
	}
	if got := banger(t, d).ok("vm", "list", "--running", "-o", "json").stdout; !strings.HasPrefix(got, "[\n  {\n    \"id\": \"aaaaaaaaaaaa\"") {
		t.Errorf("got %s", got)
	}
	if got := banger(t, d).ok("vm", "list", "-o", "yaml").stdout; !strings.Contains(got, "- id: aaaaaaaaaaaa\n  name: web\n") {
		t.Errorf("got %s", got)
	}
	banger(t, d).fails(64, "--format:", "ps", "--format", "{{.Nope}}")
	banger(t, d).fails(64, "--format:", "ps", "--format", "{{")
	t.Run("nothing is an empty table and an empty list", func(t *testing.T) {
		vms(d)
		if got := banger(t, d).ok("ps", "-o", "json").stdout; got != "[]\n" {
			t.Errorf("got %q", got)
		}
		if got := banger(t, d).ok("ps").stdout; !strings.HasPrefix(got, "NAME  ID") || strings.Count(got, "\n") != 1 {
			t.Errorf("got %q", got)
		}
	})
}

func TestVMShow(t *testing.T) {
	d := fakedaemon.Start(t)
	full := web()
	full.LastError, full.BootID, full.Env = "boom", "boot", []string{"A=1", "B=2"}
	full.Conditions = []api.Condition{{Type: "network", Message: "down"}}
	full.Workspace = &api.Workspace{GuestPath: "/root/x", Source: "/src/x", Branch: "main", BaseCommit: "abc", Changes: "clean"}
	vms(d, full, api.VM{ID: "dddddddddddd", Name: "db"})
	got := banger(t, d).ok("vm", "show", "web").stdout
	for _, want := range []string{"Name:         web\n", "Image:        debian (bbbbbbbbbbbb)\n", "Memory:       1.5G\n", "Environment:  A=1\n              B=2\n",
		"Last error:   boom\n", "PID:          77\n", "Condition:    network since : down\n", "  from:       /src/x\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if got := banger(t, d).ok("vm", "show", "aaa", "-o", "json").stdout; !strings.HasPrefix(got, "{\n") {
		t.Errorf("got %s", got)
	}
	if got := banger(t, d).ok("vm", "show", "web", "db", "--format", "{{.ID}}").stdout; got != "aaaaaaaaaaaa\ndddddddddddd\n" {
		t.Errorf("got %s", got)
	}
	c := banger(t, d).fails(66, `banger: no VM "nope"`, "vm", "show", "web", "nope", "db", "-o", "yaml")
	if !strings.Contains(c.stdout, "name: web") || !strings.Contains(c.stdout, "name: db") {
		t.Errorf("one bad reference stopped the others: %s", c.stdout)
	}
	if got := banger(t, d).ok("vm", "show", "-q", "web", "db").stdout; got != "web\ndb\n" {
		t.Errorf("got %s", got)
	}
}

func TestLife(t *testing.T) {
	d := fakedaemon.Start(t)
	vms(d, web(), api.VM{ID: "dddddddddddd", Name: "db"}, api.VM{ID: "eeeeeeeeeeee", Name: "bad"})
	var mu sync.Mutex
	var done []string
	one := func(c *fakedaemon.Call) {
		var p api.Ref
		c.Decode(&p)
		if p.Ref == "eeeeeeeeeeee" {
			c.Fail(errkind.WithHint(errkind.New(api.KindPrecondition, `VM "bad" is failed`), "see `banger vm show bad`"))
			return
		}
		mu.Lock()
		done = append(done, p.Ref)
		mu.Unlock()
		c.Reply(api.VM{ID: p.Ref})
	}
	for verb, method := range map[string]string{"start": api.MethodVMStart, "stop": api.MethodVMStop, "restart": api.MethodVMRestart, "pause": api.MethodVMPause, "resume": api.MethodVMResume, "kill": api.MethodVMKill, "delete": api.MethodVMDelete} {
		t.Run(verb+": a bad reference and a failure do not stop the rest, and each is told", func(t *testing.T) {
			d.On(method, one)
			done = nil
			c := banger(t, d).run("vm", verb, "web", "nope", "bad", "aaaa", "db")
			slices.Sort(done)
			if diff := cmp.Diff([]string{"aaaaaaaaaaaa", "dddddddddddd"}, done); diff != "" {
				t.Error(diff)
			}
			want := "banger: no VM \"nope\"\nhint: see `banger vm list`\nbanger: VM \"bad\" is failed\nhint: see `banger vm show bad`\n"
			if c.code != 66 || c.stderr != want || c.stdout != "web\ndb\n" {
				t.Errorf("exit status %d, stdout %q, stderr %s", c.code, c.stdout, c.stderr)
			}
		})
	}
	banger(t, d).ok("vm", "stop", "--timeout", "90s", "web")
	var stop api.VMStop
	if d.Params(api.MethodVMStop, &stop); stop.TimeoutMS != 90_000 {
		t.Errorf("got %+v", stop)
	}
	if done = nil; banger(t, d).ok("vm", "stop", "--all").stdout != "web\n" || !slices.Equal(done, []string{"aaaaaaaaaaaa"}) {
		t.Errorf("of all, those are stopped: %q", done)
	}
	banger(t, d).fails(64, "either VMs or --all", "vm", "stop", "--all", "web")
	banger(t, d).ok("vm", "restart", "--timeout", "1s", "web")
	banger(t, d).ok("vm", "kill", "--signal", "TERM", "web")
	var kill api.VMKill
	if d.Params(api.MethodVMKill, &kill); kill.Signal != "TERM" {
		t.Errorf("got %+v", kill)
	}
	banger(t, d).fails(64, "too short", "vm", "exec", "--timeout", "-1s", "web", "--", "true")
	banger(t, d).fails(64, "too short", "vm", "restart", "--timeout", "0s", "web")
	banger(t, d).ok("rm", "--force", "web")
	var del api.VMDelete
	if d.Params(api.MethodVMDelete, &del); !del.Force {
		t.Errorf("got %+v", del)
	}
}

func TestVMCreate(t *testing.T) {
	t.Run("flags become parameters, the name goes to stdout and progress to stderr", func(t *testing.T) {
		d := fakedaemon.Start(t)
		vms(d, web())
		operation(d, api.MethodVMBegin, "aaaaaaaaaaaa")
		c := banger(t, d).env(map[string]string{"TOKEN": "secret"}).ok("vm", "create", "--name", "web", "--image", "debian", "--kernel", "cloud", "--cold",
			"--vmm", "qemu", "--init", "/sbin/init", "--vcpu", "2", "--memory", "1.5G", "--disk-size", "10G", "--root-size", "4G",
			"--nat=false", "--group", "shop", "--publish", "8080:80", "--env", "A=1", "-e", "TOKEN", "--start", "--auto-stop", "30m")
		no, soon := false, int64(1_800_000)
		want := api.VMCreate{Name: "web", Image: "debian", Kernel: "cloud", VMM: "qemu", Init: "/sbin/init", VCPU: 2, Group: "shop", Publish: []string{"8080:80"}, MemMiB: 1536,
			DiskSize: 10 << 30, RootSize: 4 << 30, NAT: &no, Env: []string{"A=1", "TOKEN=secret"}, Start: true, Cold: true, AutoStopMS: &soon}
		var got api.VMCreate
		d.Params(api.MethodVMBegin, &got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if c.stdout != "web\n" || c.stderr != "  clone disks                         0.02s\n  boot                                1.98s\n" {
			t.Errorf("stdout %q, stderr\n%s", c.stdout, c.stderr)
		}
	})
	t.Run("without flags the daemon's defaults are left to it", func(t *testing.T) {
		d := fakedaemon.Start(t)
		vms(d, web())
		operation(d, api.MethodVMBegin, "aaaaaaaaaaaa")
		if c := banger(t, d).ok("vm", "create", "--quiet"); c.stderr != "" {
			t.Errorf("stderr %q", c.stderr)
		}
		var got api.VMCreate
		d.Params(api.MethodVMBegin, &got)
		if diff := cmp.Diff(api.VMCreate{}, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a failed operation is the command's failure", func(t *testing.T) {
		d := fakedaemon.Start(t)
		d.Result(api.MethodVMBegin, api.OperationRef{ID: "1"})
		d.On(api.MethodOperationWatch, func(c *fakedaemon.Call) {
			c.Reply(nil)
			c.Line(api.Operation{ID: "1", State: api.OperationFailed, Error: &api.Error{Kind: api.KindGuest, Message: "the kernel panicked", Hint: "see the console"}})
		})
		if c := banger(t, d).run("vm", "create", "--start"); c.code != 76 || c.stderr != "banger: the kernel panicked\nhint: see the console\n" {
			t.Errorf("exit status %d, %s", c.code, c.stderr)
		}
	})
	for state, code := range map[api.OperationState]int{api.OperationCanceled: 130, api.OperationInterrupted: 69} {
		t.Run("an operation that somebody "+string(state)+" is told", func(t *testing.T) {
			d := fakedaemon.Start(t)
			d.Result(api.MethodVMBegin, api.OperationRef{ID: "1"})
			d.On(api.MethodOperationWatch, func(c *fakedaemon.Call) { c.Reply(nil); c.Line(api.Operation{ID: "1", State: state}) })
			banger(t, d).fails(code, "operation 1 was", "vm", "create")
		})
	}
}

// hanging scripts an operation that goes on until it is cancelled, and tells when it is watched.
func hanging(d *fakedaemon.Daemon, begin string, end api.Operation) (watched chan struct{}) {
	watched = make(chan struct{})
	d.Result(begin, api.OperationRef{ID: end.ID})
	d.On(api.MethodOperationWatch, func(c *fakedaemon.Call) { c.Reply(nil); close(watched); c.HangUp() })
	d.Result(api.MethodOperationCancel, end)
	d.Result(api.MethodOperationGet, end)
	return watched
}

func TestInterruptedCreate(t *testing.T) {
	for sig, code := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143, syscall.SIGHUP: 129} {
		t.Run(sig.String()+" cancels the operation and waits for its end", func(t *testing.T) {
			d := fakedaemon.Start(t)
			watched := hanging(d, api.MethodVMBegin, api.Operation{ID: "1", State: api.OperationCanceled})
			c := banger(t, d)
			go func() { <-watched; c.signal(sig) }()
			c.fails(code, "interrupted by", "vm", "create", "--start")
			if diff := cmp.Diff([]string{api.MethodVMBegin, api.MethodOperationWatch, api.MethodOperationCancel, api.MethodOperationGet}, d.Calls()); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("a VM that was finished before the cancelling is deleted", func(t *testing.T) {
		d := fakedaemon.Start(t)
		watched := hanging(d, api.MethodVMBegin, api.Operation{ID: "1", State: api.OperationSucceeded, Result: []byte(`{"ref":"aaaaaaaaaaaa"}`)})
		d.Error(api.MethodOperationCancel, errkind.New(api.KindPrecondition, "it has ended"))
		d.Result(api.MethodVMDelete, api.Empty{})
		c := banger(t, d)
		go func() { <-watched; c.signal(syscall.SIGINT) }()
		c.fails(130, "interrupted by SIGINT", "vm", "create")
		var got api.VMDelete
		d.Params(api.MethodVMDelete, &got)
		if got.Ref.Ref != "aaaaaaaaaaaa" || !got.Force {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a cancelling that fails says where to look", func(t *testing.T) {
		d := fakedaemon.Start(t)
		watched := hanging(d, api.MethodVMBegin, api.Operation{ID: "1", State: api.OperationRunning})
		d.Error(api.MethodOperationCancel, errkind.New(api.KindTimeout, "it takes too long"))
		c := banger(t, d)
		go func() { <-watched; c.signal(syscall.SIGINT) }()
		c.fails(130, "cancel operation 1: it takes too long", "vm", "create")
		if !strings.Contains(c.stderr, "hint: see `banger operation show 1`") {
			t.Errorf("got %s", c.stderr)
		}
	})
}

// execs scripts vm.exec.
func execs(d *fakedaemon.Daemon, h func(c *fakedaemon.Call)) {
	vms(d, web())
	d.On(api.MethodVMExec, func(c *fakedaemon.Call) { c.Reply(guestapi.ExecStarted{PID: 1}); h(c) })
}

func TestExec(t *testing.T) {
	d := fakedaemon.Start(t)
	echo := func(c *fakedaemon.Call) {
		var p api.VMExec
		c.Decode(&p)
		if p.Stdin {
			in, _ := c.Stdin(nil)
			c.Frames().Write(frame.Stdout, in)
		}
		c.Frames().Write(frame.Stderr, []byte("to stderr"))
		c.Exit(frame.ExitStatus{Code: 3})
	}
	t.Run("streams and exit status pass, words are not touched", func(t *testing.T) {
		execs(d, echo)
		c := banger(t, d).stdin("\x00in\xff").env(map[string]string{"FROM_ME": "x y"}).
			run("vm", "exec", "-i", "--env", "A=1", "-e", "FROM_ME", "--cwd", "/srv", "--user", "www", "--timeout", "1m", "web", "--", "sh", "-c", "echo $A; -x")
		if c.code != 3 || c.stdout != "\x00in\xff" || c.stderr != "to stderr" {
			t.Errorf("exit status %d, stdout %q, stderr %q", c.code, c.stdout, c.stderr)
		}
		var got api.VMExec
		d.Params(api.MethodVMExec, &got)
		want := guestapi.ExecSpec{Argv: []string{"sh", "-c", "echo $A; -x"}, Env: []string{"A=1", "FROM_ME=x y"}, Cwd: "/srv", User: "www", Stdin: true, TimeoutMS: 60_000}
		if diff := cmp.Diff(want, got.ExecSpec); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("flags after the VM are the command's, with and without --", func(t *testing.T) {
		execs(d, echo)
		for _, args := range [][]string{{"exec", "web", "ls", "-i", "--", "x"}, {"exec", "web", "--", "ls", "-i", "--", "x"}} {
			banger(t, d).run(args...)
			var got api.VMExec
			d.Params(api.MethodVMExec, &got)
			if diff := cmp.Diff([]string{"ls", "-i", "--", "x"}, got.Argv); diff != "" || got.Stdin || got.Login {
				t.Errorf("%q: %+v %s", args, got, diff)
			}
		}
	})
	t.Run("without a command it is a login shell that reads standard input", func(t *testing.T) {
		execs(d, echo)
		if c := banger(t, d).stdin("exit").run("exec", "web"); c.stdout != "exit" {
			t.Errorf("got %q", c.stdout)
		}
		var got api.VMExec
		if d.Params(api.MethodVMExec, &got); !got.Login || got.TTY || len(got.Argv) != 0 {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a command that cannot run is told", func(t *testing.T) {
		execs(d, func(c *fakedaemon.Call) { c.Exit(frame.ExitStatus{Code: 127, Error: `"nope": not found`}) })
		if c := banger(t, d).run("exec", "web", "nope"); c.code != 127 || c.stderr != "banger: \"nope\": not found\n" {
			t.Errorf("exit status %d, %q", c.code, c.stderr)
		}
	})
	t.Run("it starts in the workspace", func(t *testing.T) {
		execs(d, echo)
		v := web()
		v.Workspace = &api.Workspace{GuestPath: "/root/site"}
		vms(d, v)
		banger(t, d).run("exec", "web", "pwd")
		var got api.VMExec
		if d.Params(api.MethodVMExec, &got); got.Cwd != "/root/site" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("an unknown VM and a cut connection are errors of banger's", func(t *testing.T) {
		execs(d, func(c *fakedaemon.Call) { c.Frames().Write(frame.Stdout, []byte("x")) })
		banger(t, d).fails(66, `no VM "nope"`, "exec", "nope", "true")
		banger(t, d).fails(69, "the connection was cut", "exec", "web", "true")
	})
	// attached makes c tell when its command runs: signals before that interrupt banger itself.
	attached := func(c *cmdline) chan struct{} {
		out := &waitFor{want: "ready", found: make(chan struct{})}
		c.app.Out = out
		return out.found
	}
	t.Run("an interrupt goes to the command", func(t *testing.T) {
		execs(d, func(c *fakedaemon.Call) {
			c.Frames().Write(frame.Stdout, []byte("ready"))
			got := make(chan string, 1)
			go c.Stdin(func(ft frame.Type, p []byte) { got <- ft.String() + " " + string(p) })
			if s := <-got; s != "signal INT" {
				t.Errorf("got %q", s)
			}
			c.Exit(frame.ExitStatus{Code: 130, Signal: "INT"})
		})
		c := banger(t, d)
		ready := attached(c)
		go func() { <-ready; c.signal(syscall.SIGINT) }()
		if c.run("exec", "web", "sleep", "9"); c.code != 130 || c.stderr != "" {
			t.Errorf("exit status %d, %q", c.code, c.stderr)
		}
	})
	t.Run("the second interrupt hangs up on a command that ignores the first", func(t *testing.T) {
		execs(d, func(c *fakedaemon.Call) { c.Frames().Write(frame.Stdout, []byte("ready")); c.HangUp() })
		c := banger(t, d)
		ready := attached(c)
		go func() { <-ready; c.signal(syscall.SIGINT); c.signal(syscall.SIGINT) }()
		c.fails(130, "interrupted by SIGINT", "exec", "web", "sleep", "9")
	})
	t.Run("nobody reads the output any more", func(t *testing.T) {
		execs(d, echo)
		c := banger(t, d).stdin("x")
		c.app.Out = brokenPipe{}
		if c.run("exec", "-i", "web", "yes"); c.code != 141 || c.stderr != "" && c.stderr != "to stderr" {
			t.Errorf("exit status %d, %q", c.code, c.stderr)
		}
	})
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "|1", Err: syscall.EPIPE}
}

func TestLogs(t *testing.T) {
	d := fakedaemon.Start(t)
	d.On(api.MethodVMLogs, func(c *fakedaemon.Call) {
		c.Reply(nil)
		io.WriteString(c, "[    0.000000] Linux\n")
		var p api.VMLogs
		if c.Decode(&p); p.Follow {
			c.HangUp()
		}
	})
	for text, ago := range map[string]time.Duration{"10m": 10 * time.Minute, time.Now().Add(-time.Hour).Format(time.RFC3339): time.Hour} {
		banger(t, d).ok("vm", "logs", "--since", text, "web")
		var p api.VMLogs
		if d.Params(api.MethodVMLogs, &p); time.Since(p.Since).Round(time.Minute) != ago {
			t.Errorf("%s: since %v", text, p.Since)
		}
	}
	banger(t, d).fails(64, "bad time", "vm", "logs", "--since", "yesterday", "web")
	if got := banger(t, d).ok("vm", "logs", "--tail", "5", "--source", "vmm", "web").stdout; got != "[    0.000000] Linux\n" {
		t.Errorf("got %q", got)
	}
	var p api.VMLogs
	d.Params(api.MethodVMLogs, &p)
	if diff := cmp.Diff(api.VMLogs{Ref: api.Ref{Ref: "web"}, Source: "vmm", Tail: 5}, p); diff != "" {
		t.Error(diff)
	}
	c := banger(t, d)
	out := &waitFor{want: "Linux\n", found: make(chan struct{})}
	c.app.Out = out
	go func() { <-out.found; c.signal(syscall.SIGINT) }()
	if c.run("vm", "logs", "--follow", "web"); c.code != 130 {
		t.Errorf("exit status %d: %s", c.code, c.stderr)
	}
}

func TestHealthAndPorts(t *testing.T) {
	d := fakedaemon.Start(t)
	d.Result(api.MethodVMHealth, api.VMHealth{
		Hello: guestapi.Hello{Version: "v1", Kernel: "6.1", Init: "agent", BootID: "b", NetworkUp: true, Warnings: []string{"no modules"},
			Phases: []guestapi.Phase{{Name: "root", AtMS: 1830}}},
		Stats: guestapi.Stats{UptimeMS: 61_000, Load1: 0.5, Processes: 9, MemTotal: 1 << 30, MemAvailable: 512 << 20,
			Disks: []guestapi.DiskUse{{Target: "/", Size: 2 << 30, Used: 300 << 20}}},
	})
	want := `Agent:      v1
Kernel:     6.1
Init:       agent
Boot id:    b
Network:    up
SSH:        down
Up:         1m1s
Load:       0.50
Processes:  9
Memory:     512M free of 1G
Disk /:     300M used of 2G
Boot root:  at 1.83s
Warning:    no modules
`
	if diff := cmp.Diff(want, banger(t, d).ok("vm", "health", "web").stdout); diff != "" {
		t.Error(diff)
	}
	if got := banger(t, d).ok("vm", "health", "web", "-q", "-o", "json", "--format", "{{.Stats.Load1}}").stdout; got != "0.5\n" {
		t.Errorf("got %q", got)
	}
	d.Result(api.MethodVMPorts, api.VMPorts{Ports: []api.VMPort{{Network: "tcp", Address: "0.0.0.0", Port: 80, PID: 5, Process: "nginx",
		Published: []string{"127.0.0.1:8080"}, URL: "http://web.vm:80"}, {Network: "udp", Address: "::", Port: 53}}})
	if diff := cmp.Diff("PORT  NETWORK  ADDRESS  PID  PROCESS  PUBLISHED       URL\n"+
		"80    tcp      0.0.0.0  5    nginx    127.0.0.1:8080  http://web.vm:80\n53    udp      ::       -    -        -               -\n",
		banger(t, d).ok("vm", "ports", "web").stdout); diff != "" {
		t.Error(diff)
	}
	if got := banger(t, d).ok("vm", "ports", "web", "-q").stdout; got != "80\n53\n" {
		t.Errorf("got %q", got)
	}
	if got := banger(t, d).ok("vm", "ports", "web", "-o", "json", "--format", "{{.Process}}").stdout; got != "nginx\n\n" {
		t.Errorf("got %q", got)
	}
}

func TestSSH(t *testing.T) {
	d := fakedaemon.Start(t)
	hosts := filepath.Join(d.Root, "known_hosts")
	d.Result(api.MethodVMSSH, api.VMSSH{Name: "web", User: "root", Identity: "/k/id", KnownHosts: hosts, HostAlias: "banger-aaaaaaaaaaaa"})
	t.Run("ssh gets key, pinned host key and the control channel, and what follows the VM", func(t *testing.T) {
		bin := t.TempDir()
		if err := os.WriteFile(filepath.Join(bin, "ssh"), nil, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", bin)
		c := banger(t, d)
		c.app.Executable = "/opt/my bin/banger"
		var argv []string
		c.app.Replace = func(a, _ []string) error { argv = a; return nil }
		c.ok("vm", "ssh", "--user", "me", "web", "--", "-N", "uptime")
		want := []string{filepath.Join(bin, "ssh"), "-l", "me", "-i", "/k/id", "-o", "IdentitiesOnly=yes", "-o", `UserKnownHostsFile="` + hosts + `"`,
			"-o", "GlobalKnownHostsFile=/dev/null", "-o", "HostKeyAlias=banger-aaaaaaaaaaaa", "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no",
			"-o", "ProxyCommand=env BANGER_ROOT=" + d.Root + " '/opt/my bin/banger' vm dial --ssh web", "web.vm", "-N", "uptime"}
		if diff := cmp.Diff(want, argv); diff != "" {
			t.Error(diff)
		}
		c.ok("ssh", "web")
		if argv[2] != "root" {
			t.Errorf("got %q", argv)
		}
	})
	t.Run("without an ssh client the hint is exec", func(t *testing.T) {
		if _, err := os.Stat("/usr/sbin/ssh"); err == nil {
			t.Skip("this host has /usr/sbin/ssh")
		}
		t.Setenv("PATH", t.TempDir())
		c := banger(t, d).fails(69, `program "ssh" is not installed`, "ssh", "web")
		if !strings.Contains(c.stderr, "hint: install openssh-client, or use `banger vm exec web`") {
			t.Errorf("got %s", c.stderr)
		}
	})
	t.Run("ssh-config covers every VM and writes nothing", func(t *testing.T) {
		got := banger(t, d).ok("ssh-config").stdout
		for _, want := range []string{"Host *.vm\n", `IdentityFile "` + d.Root + `/state/keys/id_ed25519"`, "StrictHostKeyChecking yes", " vm dial --ssh %n\n", " vm known-hosts %H\n"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
	})
	t.Run("known-hosts gives the pinned key under the name that ssh uses", func(t *testing.T) {
		banger(t, d).fails(78, "has no host key yet", "vm", "known-hosts", "web.vm")
		if err := os.WriteFile(hosts, []byte("banger-aaaaaaaaaaaa ssh-ed25519 AAAA\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := banger(t, d).ok("vm", "known-hosts", "web.vm").stdout; got != "web.vm ssh-ed25519 AAAA\n" {
			t.Errorf("got %q", got)
		}
		var p api.Ref
		if d.Params(api.MethodVMSSH, &p); p.Ref != "web" {
			t.Errorf("got %q", p.Ref)
		}
	})
}

func TestDial(t *testing.T) {
	d := fakedaemon.Start(t)
	d.On(api.MethodVMDial, func(c *fakedaemon.Call) {
		c.Reply(nil)
		b, err := io.ReadAll(c) // to the half-close
		c.Write(append([]byte("got "), b...))
		if err != nil {
			t.Error(err)
		}
	})
	for want, args := range map[api.VMDial][]string{
		{Ref: api.Ref{Ref: "web"}, SSH: true}:                                                         {"--ssh", "web.vm"},
		{Ref: api.Ref{Ref: "web"}, Dial: guestapi.Dial{Network: "tcp", Address: "localhost:80"}}:      {"web", "localhost:80"},
		{Ref: api.Ref{Ref: "web"}, Dial: guestapi.Dial{Network: "unix", Address: "/run/docker.sock"}}: {"web", "/run/docker.sock"},
	} {
		if got := banger(t, d).stdin("hello").ok(append([]string{"vm", "dial"}, args...)...).stdout; got != "got hello" {
			t.Errorf("got %q", got)
		}
		var got api.VMDial
		d.Params(api.MethodVMDial, &got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	t.Run("ssh ends it by a signal, and it ends quietly", func(t *testing.T) {
		d.On(api.MethodVMDial, func(c *fakedaemon.Call) { c.Reply(nil); io.WriteString(c, "SSH-2.0"); c.HangUp() })
		c := banger(t, d)
		in, feed := io.Pipe()
		defer feed.Close()
		out := &waitFor{want: "SSH-2.0", found: make(chan struct{})}
		c.app.In, c.app.Out = in, out
		go func() { <-out.found; c.signal(syscall.SIGHUP) }()
		if c.run("vm", "dial", "--ssh", "web"); c.code != 129 || c.stderr != "" {
			t.Errorf("exit status %d, %s", c.code, c.stderr)
		}
	})
}
