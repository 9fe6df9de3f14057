package cli_test

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

// repository makes a git repository called site with one commit on main, and returns its path.
func repository(t *testing.T) string {
	t.Helper()
	if _, err := host.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	dir := filepath.Join(t.TempDir(), "site")
	git(t, ".", "init", "-q", "-b", "main", dir)
	write(t, filepath.Join(dir, "page.html"), "one\n")
	git(t, dir, "add", "page.html")
	git(t, dir, "-c", "user.name=me", "-c", "user.email=me@x", "commit", "-q", "-m", "first")
	return dir
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := host.Output(t.Context(), host.Command{Argv: append([]string{"git", "-C", dir}, args...)})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const patch = "diff --git a/page.html b/page.html\n--- a/page.html\n+++ b/page.html\n@@ -1 +1 @@\n-one\n+two\n"

// machine is a scripted daemon with one VM, web, that can be created and deleted and has a workspace once one was carried in.
type machine struct {
	*fakedaemon.Daemon
	mu       sync.Mutex
	vm       *api.VM
	carried  []string // names in the workspace's tar
	leases   int      // held now
	released int
}

func newMachine(t *testing.T) *machine {
	m := &machine{Daemon: fakedaemon.Start(t)}
	v := web()
	operation(m.Daemon, api.MethodVMBegin, v.ID)
	m.On(api.MethodVMGet, func(c *fakedaemon.Call) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.vm == nil {
			m.vm = &v
		}
		c.Reply(*m.vm)
	})
	m.Result(api.MethodImageGet, api.Image{ID: v.ImageID})
	m.On(api.MethodVMLease, func(c *fakedaemon.Call) {
		m.mu.Lock()
		m.leases++
		m.mu.Unlock()
		c.Reply(v)
		c.HangUp()
		m.mu.Lock()
		m.leases--
		m.released++
		m.mu.Unlock()
	})
	m.On(api.MethodWorkPrepare, func(c *fakedaemon.Call) {
		var p api.WorkPrepare
		c.Decode(&p)
		c.Reply(p.Workspace)
		data, whole := c.Stdin(nil)
		if !whole {
			return
		}
		m.mu.Lock()
		m.vm.Workspace, m.carried = &p.Workspace, names(t, data)
		m.mu.Unlock()
		c.Exit(frame.ExitStatus{})
	})
	m.On(api.MethodVMExec, func(c *fakedaemon.Call) {
		c.Reply(guestapi.ExecStarted{})
		c.Frames().Write(frame.Stdout, []byte("guest says\n"))
		c.Exit(frame.ExitStatus{Code: 7})
	})
	m.exports("patch", "patch", patch)
	m.Result(api.MethodWorkExported, api.Empty{})
	m.Result(api.MethodVMDelete, api.Empty{})
	return m
}

// exports scripts workspace.export; an empty data is a workspace without changes.
func (m *machine) exports(asked, format, data string) {
	m.On(api.MethodWorkExport, func(c *fakedaemon.Call) {
		st := guestapi.WorkStatus{Tree: "feed", Git: true, Changed: data != "", Files: []guestapi.WorkFile{{Path: "page.html", Status: "M"}}}
		c.Reply(guestapi.WorkOutReply{Format: format, Status: st})
		c.Frames().Write(frame.Stdout, []byte(data))
		c.Exit(frame.ExitStatus{})
	})
}

// patches returns the patch files in banger's own directory.
func (m *machine) patches(t *testing.T) []string {
	files, err := filepath.Glob(filepath.Join(m.Root, "state", "patches", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestRun(t *testing.T) {
	t.Run("--rm: carried in, run, saved, deleted, the guest's status passed on", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		write(t, filepath.Join(repo, "untracked"), "x")
		c := banger(t, m.Daemon).run("vm", "run", "--rm", repo, "--", "sh", "-c", "exit 7")
		if c.code != 7 || c.stdout != "guest says\n" {
			t.Errorf("exit status %d, stdout %q, stderr %s", c.code, c.stdout, c.stderr)
		}
		want := []string{api.MethodVMBegin, api.MethodOperationWatch, api.MethodVMGet, api.MethodVMLease, api.MethodWorkPrepare, api.MethodVMGet,
			api.MethodVMExec, api.MethodWorkExport, api.MethodWorkExported, api.MethodVMDelete}
		if diff := cmp.Diff(want, m.Calls()); diff != "" {
			t.Error(diff)
		}
		if !slices.Contains(m.carried, "page.html") || slices.Contains(m.carried, "untracked") {
			t.Errorf("carried %q", m.carried)
		}
		var create api.VMCreate
		if m.Params(api.MethodVMBegin, &create); !create.Ephemeral || !create.Start {
			t.Errorf("got %+v", create)
		}
		var exec api.VMExec
		if m.Params(api.MethodVMExec, &exec); exec.Cwd != "/root/site" || exec.TTY || !exec.Stdin {
			t.Errorf("got %+v", exec)
		}
		var exported api.WorkExported
		if m.Params(api.MethodWorkExported, &exported); exported.Tree != "feed" {
			t.Errorf("got %+v", exported)
		}
		files := m.patches(t)
		if len(files) != 1 || !strings.HasPrefix(filepath.Base(files[0]), "site-web-") {
			t.Fatalf("got %q", files)
		}
		if b, err := os.ReadFile(files[0]); err != nil || string(b) != patch {
			t.Errorf("%q, %v", b, err)
		}
		if want := "banger: 1 file changed in /root/site of web, saved in " + files[0] + "\n        apply them with: git -C " + repo + " apply " + files[0] + "\n"; !strings.HasSuffix(c.stderr, want) {
			t.Errorf("stderr %s", c.stderr)
		}
		// What is said must be true.
		git(t, repo, "apply", files[0])
	})
	t.Run("--rm without changes leaves no patch", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		m.exports("patch", "patch", "")
		c := banger(t, m.Daemon).run("run", "--rm", "-q", repo, "--", "true")
		if c.code != 7 || len(m.patches(t)) != 0 || c.stderr != "banger: no changes in /root/site of web\n" {
			t.Errorf("exit status %d, %q, %s", c.code, m.patches(t), c.stderr)
		}
	})
	t.Run("bare in a repository takes it; without --rm the VM stays and the way back is told", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		t.Chdir(repo)
		c := banger(t, m.Daemon).run("run")
		if c.code != 7 || m.vm.Workspace == nil || m.vm.Workspace.Source != repo || slices.Contains(m.Calls(), api.MethodVMDelete) {
			t.Errorf("exit status %d, %+v, %q", c.code, m.vm.Workspace, m.Calls())
		}
		if !strings.Contains(c.stderr, "come back with: banger exec web") {
			t.Errorf("stderr %s", c.stderr)
		}
		var exec api.VMExec
		if m.Params(api.MethodVMExec, &exec); !exec.Login {
			t.Errorf("got %+v", exec)
		}
	})
	t.Run("bare outside of a repository and with --no-workspace it is a plain machine", func(t *testing.T) {
		t.Chdir(t.TempDir())
		for _, args := range [][]string{{"run", "--rm", "--user", "me"}, {"vm", "run", "--no-workspace", "--rm", "--user", "me"}} {
			m := newMachine(t)
			banger(t, m.Daemon).run(args...)
			want := []string{api.MethodVMBegin, api.MethodOperationWatch, api.MethodVMGet, api.MethodVMLease, api.MethodImageGet, api.MethodVMExec, api.MethodVMDelete}
			if diff := cmp.Diff(want, m.Calls()); diff != "" {
				t.Errorf("%q: %s", args, diff)
			}
			var exec api.VMExec
			if m.Params(api.MethodVMExec, &exec); exec.User != "me" || exec.Cwd != "" {
				t.Errorf("got %+v", exec)
			}
		}
	})
	t.Run("without a command it runs the image's, as the user and where the image says", func(t *testing.T) {
		t.Chdir(t.TempDir())
		m := newMachine(t)
		m.Result(api.MethodImageGet, api.Image{Run: &api.ImageRun{Command: []string{"serve", "-v"}, User: "app", Dir: "/srv"}})
		banger(t, m.Daemon).run("run", "--rm")
		var exec api.VMExec
		m.Params(api.MethodVMExec, &exec)
		want := guestapi.ExecSpec{Argv: []string{"serve", "-v"}, User: "app", Cwd: "/srv"}
		exec.Stdin = false // as the test's own is
		if diff := cmp.Diff(want, exec.ExecSpec); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("what the flags say of VM and source arrives", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		write(t, filepath.Join(repo, "untracked"), "x")
		banger(t, m.Daemon).run("vm", "run", "--name", "web", "--image", "i", "--kernel", "k", "--vmm", "qemu", "--init", "agent", "--vcpu", "1", "--memory", "512M",
			"--disk-size", "1G", "--root-size", "2G", "--nat=false", "--cold", "--group", "shop", "-p", "8080:80", "--auto-stop", "1h", "--env", "A=1", "--branch", "topic", "--include-untracked", "--depth", "3", "--quiet", repo)
		var got api.VMCreate
		m.Params(api.MethodVMBegin, &got)
		no := false
		want := api.VMCreate{Name: "web", Image: "i", Kernel: "k", VMM: "qemu", Init: "agent", VCPU: 1, Group: "shop", Publish: []string{"8080:80"}, MemMiB: 512, DiskSize: 1 << 30, RootSize: 2 << 30, Cold: true,
			NAT: &no, Env: []string{"A=1"}, AutoStopMS: new(int64(3_600_000)), Start: true}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if m.vm.Workspace.Branch != "topic" || !slices.Contains(m.carried, "untracked") {
			t.Errorf("%+v, %q", m.vm.Workspace, m.carried)
		}
		m = newMachine(t)
		write(t, filepath.Join(repo, "page.html"), "changed\n")
		banger(t, m.Daemon).run("run", "--from", "main", repo)
		if want := git(t, repo, "rev-parse", "HEAD^{tree}"); m.vm.Workspace.BaseTree != want {
			t.Errorf("base tree %s, want HEAD's %s", m.vm.Workspace.BaseTree, want)
		}
	})
	t.Run("--patch saves where it says, --apply changes the working tree", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		file := filepath.Join(t.TempDir(), "p.patch")
		c := banger(t, m.Daemon).run("run", "--rm", "--patch", file, "--apply", repo, "--", "true")
		if b, err := os.ReadFile(file); err != nil || string(b) != patch {
			t.Errorf("%q, %v", b, err)
		}
		if b, err := os.ReadFile(filepath.Join(repo, "page.html")); err != nil || string(b) != "two\n" {
			t.Errorf("%q, %v; %s", b, err, c.stderr)
		}
	})
	t.Run("a patch that does not fit is kept, nothing is changed, and the VM is deleted", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		m.On(api.MethodVMExec, func(c *fakedaemon.Call) {
			c.Reply(nil)
			write(t, filepath.Join(repo, "page.html"), "meanwhile\n")
			c.Exit(frame.ExitStatus{})
		})
		c := banger(t, m.Daemon).fails(78, "apply ", "run", "--rm", "--apply", repo, "--", "true")
		if b, _ := os.ReadFile(filepath.Join(repo, "page.html")); string(b) != "meanwhile\n" || len(m.patches(t)) != 1 || !strings.Contains(c.stderr, "--3way") {
			t.Errorf("%q, %q, %s", b, m.patches(t), c.stderr)
		}
		if !slices.Contains(m.Calls(), api.MethodVMDelete) {
			t.Errorf("got %q", m.Calls())
		}
	})
	t.Run("an export that fails keeps the VM and says how to go on", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		m.Error(api.MethodWorkExport, errkind.New(api.KindGuest, "no space left on device"))
		c := banger(t, m.Daemon).fails(76, `save the changes of VM "web", which is kept: no space left`, "run", "--rm", repo, "--", "true")
		if slices.Contains(m.Calls(), api.MethodVMDelete) || !strings.Contains(c.stderr, "banger vm workspace export web --output FILE") {
			t.Errorf("%q, %s", m.Calls(), c.stderr)
		}
	})
	t.Run("half an export is none", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		m.On(api.MethodWorkExport, func(c *fakedaemon.Call) {
			c.Reply(guestapi.WorkOutReply{Format: "patch", Status: guestapi.WorkStatus{Changed: true}})
			c.Frames().Write(frame.Stdout, []byte(patch[:10]))
		})
		banger(t, m.Daemon).fails(69, "the connection was cut", "run", "--rm", repo, "--", "true")
		if calls := m.Calls(); slices.Contains(calls, api.MethodVMDelete) || slices.Contains(calls, api.MethodWorkExported) || len(m.patches(t)) != 0 {
			t.Errorf("%q, %q", calls, m.patches(t))
		}
	})
	t.Run("--detach prints the name and runs nothing", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		c := banger(t, m.Daemon).ok("run", "--detach", repo)
		if c.stdout != "web\n" || slices.Contains(m.Calls(), api.MethodVMExec) || m.vm.Workspace == nil {
			t.Errorf("%q, %q", c.stdout, m.Calls())
		}
	})
	t.Run("--detach leaves a command running, in the workspace", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		m.Result(api.MethodSessionStart, build())
		c := banger(t, m.Daemon).ok("run", "--detach", "--user", "www", repo, "--", "make", "-j4")
		if c.stdout != "web\n" || !strings.Contains(c.stderr, "banger vm session attach web main") {
			t.Errorf("%q, %q", c.stdout, c.stderr)
		}
		var got api.SessionStart
		m.Params(api.MethodSessionStart, &got)
		want := guestapi.SessionSpec{Name: "main", ExecSpec: guestapi.ExecSpec{Argv: []string{"make", "-j4"}, Cwd: "/root/site", User: "www"}}
		if diff := cmp.Diff(want, got.SessionSpec); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("--detach with a command that is missing leaves no VM", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		m.Result(api.MethodSessionStart, api.Session{Session: guestapi.Session{Exit: &frame.ExitStatus{Code: 127, Error: "no such command"}}})
		banger(t, m.Daemon).fails(127, "no such command", "run", "--detach", repo, "--", "nope")
		if !slices.Contains(m.Calls(), api.MethodVMDelete) {
			t.Errorf("%q", m.Calls())
		}
	})
	t.Run("--dry-run prints what would be and does nothing", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		write(t, filepath.Join(repo, "page.html"), "changed\n")
		write(t, filepath.Join(repo, "new\nname"), "x")
		c := banger(t, m.Daemon).ok("run", "--dry-run", "--include-untracked", "--vcpu", "2", "--memory", "1G", repo)
		want := "vm         (two random words)\nimage      (the default image)\nvcpu       2\nmemory     1G\nworkspace  " + repo + " -> /root/site\ncommit     " +
			git(t, repo, "rev-parse", "HEAD")[:12] + "\nbranch     main\nchanges    1 changed, 1 untracked\nfiles      2, 9\n"
		if !strings.HasPrefix(c.stdout, want) || !strings.Contains(c.stdout, "         8 page.html\n") || !strings.Contains(c.stdout, `         1 "new\nname"`) {
			t.Errorf("got\n%s\nwant\n%s", c.stdout, want)
		}
		t.Chdir(t.TempDir())
		if got := banger(t, m.Daemon).ok("run", "--dry-run").stdout; !strings.HasSuffix(got, "workspace  none\n") {
			t.Errorf("got %s", got)
		}
		if calls := m.Calls(); len(calls) != 0 {
			t.Errorf("got %q", calls)
		}
	})
	t.Run("a closed pipe ends the command, and the work is saved all the same", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		c := banger(t, m.Daemon)
		c.app.Out = brokenPipe{}
		if c.run("run", "--rm", repo, "--", "yes"); c.code != 141 || len(m.patches(t)) != 1 || !slices.Contains(m.Calls(), api.MethodVMDelete) {
			t.Errorf("exit status %d, %q, %s", c.code, m.Calls(), c.stderr)
		}
	})
	t.Run("a guest without git sends its files, and the patch is made here", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		tw.WriteHeader(&tar.Header{Name: "page.html", Mode: 0o644, Size: 4})
		io.WriteString(tw, "two\n")
		tw.Close()
		m.exports("patch", "tar", b.String())
		c := banger(t, m.Daemon).run("run", "--rm", "--apply", repo, "--", "true")
		if b, err := os.ReadFile(filepath.Join(repo, "page.html")); err != nil || string(b) != "two\n" {
			t.Errorf("%q, %v; %s", b, err, c.stderr)
		}
	})
}

func TestRunLeavesNothing(t *testing.T) {
	t.Run("bad input reaches no daemon", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		empty, plain := filepath.Join(t.TempDir(), "empty"), t.TempDir()
		git(t, ".", "init", "-q", empty)
		for _, c := range []struct {
			args []string
			code int
		}{
			{[]string{plain}, 66},
			{[]string{"/no/where"}, 66},
			{[]string{empty}, 78},
			{[]string{"--from", "nope", repo}, 66},
			{[]string{"--branch", "a..b", repo}, 64},
			{[]string{"--memory", "1K", repo}, 64},
		} {
			got := banger(t, m.Daemon).fails(c.code, "", append([]string{"run", "--rm"}, c.args...)...)
			if !strings.Contains(got.stderr, "hint: ") {
				t.Errorf("%q: no hint: %s", c.args, got.stderr)
			}
		}
		t.Chdir(plain)
		banger(t, m.Daemon).fails(66, "", "run", "--apply")
		if calls := m.Calls(); len(calls) != 0 {
			t.Errorf("got %q", calls)
		}
	})
	t.Run("a workspace that cannot be carried in takes the VM with it", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		m.On(api.MethodWorkPrepare, func(c *fakedaemon.Call) {
			c.Reply(nil)
			c.Stdin(nil)
			c.Exit(frame.ExitStatus{Code: 1, Error: "no space left on device"})
		})
		banger(t, m.Daemon).fails(76, "no space left on device", "run", repo)
		if !slices.Contains(m.Calls(), api.MethodVMDelete) || slices.Contains(m.Calls(), api.MethodVMExec) {
			t.Errorf("got %q", m.Calls())
		}
	})
	t.Run("a delete that fails as well is told", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		m.Error(api.MethodWorkPrepare, errkind.New(api.KindBusy, "not now"))
		m.Error(api.MethodVMDelete, errkind.New(api.KindInternal, "disk on fire"))
		c := banger(t, m.Daemon).fails(75, "disk on fire", "run", repo)
		if !strings.Contains(c.stderr, "hint: run `banger vm delete --force") {
			t.Errorf("got %s", c.stderr)
		}
	})
	t.Run("an interrupt while the workspace goes in deletes the VM", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		in := make(chan struct{})
		m.On(api.MethodWorkPrepare, func(c *fakedaemon.Call) { c.Reply(nil); close(in); c.HangUp() })
		c := banger(t, m.Daemon)
		go func() { <-in; c.signal(syscall.SIGINT) }()
		c.fails(130, "interrupted by SIGINT", "run", "--rm", repo)
		if !slices.Contains(m.Calls(), api.MethodVMDelete) {
			t.Errorf("got %q", m.Calls())
		}
	})
	t.Run("an interrupt while the VM is made cancels and deletes nothing twice", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		watched := hanging(m.Daemon, api.MethodVMBegin, api.Operation{ID: "1", State: api.OperationCanceled})
		c := banger(t, m.Daemon)
		go func() { <-watched; c.signal(syscall.SIGTERM) }()
		c.fails(143, "interrupted by SIGTERM", "run", repo)
		want := []string{api.MethodVMBegin, api.MethodOperationWatch, api.MethodOperationCancel, api.MethodOperationGet}
		if diff := cmp.Diff(want, m.Calls()); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("the user's repository is not touched", func(t *testing.T) {
		repo, m := repository(t), newMachine(t)
		before := treeOf(t, repo)
		banger(t, m.Daemon).run("run", "--rm", "--include-untracked", repo, "--", "true")
		if diff := cmp.Diff(before, treeOf(t, repo)); diff != "" {
			t.Error(diff)
		}
	})
}

// treeOf reads every file below dir.
func treeOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		files[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestWorkspace(t *testing.T) {
	repo, m := repository(t), newMachine(t)
	v := web()
	m.vm = &v
	t.Run("export needs a workspace", func(t *testing.T) {
		banger(t, m.Daemon).fails(66, `VM "web" has no workspace`, "vm", "workspace", "export", "web")
	})
	t.Run("prepare", func(t *testing.T) {
		write(t, filepath.Join(repo, "untracked"), "x")
		c := banger(t, m.Daemon).ok("vm", "workspace", "prepare", "--guest-path", "/srv/x", "--branch", "topic", "--from", "main", "--depth", "2", "web", repo)
		if c.stdout != "/srv/x\n" || !strings.Contains(c.stderr, "carry workspace in") || m.vm.Workspace.Branch != "topic" {
			t.Errorf("%q, %q, %+v", c.stdout, c.stderr, m.vm.Workspace)
		}
		t.Chdir(repo)
		if c := banger(t, m.Daemon).ok("vm", "ws", "prepare", "-q", "--include-untracked", "web"); c.stdout != "/root/site\n" || c.stderr != "" {
			t.Errorf("%q, %q", c.stdout, c.stderr)
		}
		n := len(m.Calls())
		if got := banger(t, m.Daemon).ok("vm", "workspace", "prepare", "--dry-run", "web").stdout; !strings.Contains(got, "branch     main\n") {
			t.Errorf("got %s", got)
		}
		if len(m.Calls()) != n {
			t.Errorf("a dry run reached the daemon: %q", m.Calls()[n:])
		}
		banger(t, m.Daemon).fails(66, "", "vm", "workspace", "prepare", "web", "/no/where")
	})
	t.Run("status", func(t *testing.T) {
		m.Result(api.MethodWorkStatus, api.WorkStatus{Workspace: *m.vm.Workspace, Unexported: true,
			Status: guestapi.WorkStatus{Git: true, Head: "abc", Branch: "main", Changed: true, Files: []guestapi.WorkFile{{Path: "a", Status: "M"}, {Path: "b", Status: "A"}}}})
		got := banger(t, m.Daemon).ok("vm", "workspace", "status", "web").stdout
		if !strings.Contains(got, "State:      changes that were not exported\nFiles:      M a\n            A b\n") {
			t.Errorf("got\n%s", got)
		}
		if got := banger(t, m.Daemon).ok("vm", "workspace", "status", "-q", "web").stdout; got != "a\nb\n" {
			t.Errorf("got %q", got)
		}
		if got := banger(t, m.Daemon).ok("vm", "workspace", "status", "-o", "json", "--format", "{{.Unexported}}", "web").stdout; got != "true\n" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("export to standard output", func(t *testing.T) {
		if c := banger(t, m.Daemon).ok("vm", "workspace", "export", "--format", "patch", "--base", "commit", "web"); c.stdout != patch || c.stderr != "" {
			t.Errorf("%q, %q", c.stdout, c.stderr)
		}
		var p api.WorkExport
		if m.Params(api.MethodWorkExport, &p); p.Base != "commit" {
			t.Errorf("got %+v", p)
		}
		c := banger(t, m.Daemon)
		c.app.OutTTY = true
		c.fails(64, "a tar is not for a terminal", "vm", "workspace", "export", "--format", "tar", "web")
	})
	t.Run("an export that could not be written does not count", func(t *testing.T) {
		n := len(m.Calls())
		c := banger(t, m.Daemon)
		c.app.Out = brokenPipe{}
		c.run("vm", "workspace", "export", "web")
		banger(t, m.Daemon).fails(70, "store the export", "vm", "workspace", "export", "--output", "/no/where/x", "web")
		if slices.Contains(m.Calls()[n:], api.MethodWorkExported) || c.code != 141 {
			t.Errorf("exit status %d, %q", c.code, m.Calls()[n:])
		}
	})
	t.Run("export to a file, and apply", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "x.bundle")
		m.exports("bundle", "bundle", "bundle bytes")
		c := banger(t, m.Daemon).ok("vm", "workspace", "export", "--format", "bundle", "--output", file, "web")
		if b, err := os.ReadFile(file); err != nil || string(b) != "bundle bytes" || !strings.Contains(c.stderr, "fetch "+file) {
			t.Errorf("%q, %v, %s", b, err, c.stderr)
		}
		m.exports("patch", "patch", patch)
		other := filepath.Join(t.TempDir(), "other")
		git(t, ".", "clone", "-q", repo, other)
		banger(t, m.Daemon).ok("vm", "workspace", "export", "--apply", "--repo", other, "web")
		banger(t, m.Daemon).ok("vm", "workspace", "export", "--apply", "web")
		for _, dir := range []string{repo, other} {
			if b, err := os.ReadFile(filepath.Join(dir, "page.html")); err != nil || string(b) != "two\n" {
				t.Errorf("%s: %q, %v", dir, b, err)
			}
		}
	})
}
