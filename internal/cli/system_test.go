package cli_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
	"github.com/banger-vm/banger/internal/host"
)

// installer is a banger that installs into a root file system of its own.
type installer struct {
	*cmdline
	bin, root string
}

func newInstaller(t *testing.T) installer {
	t.Helper()
	i := installer{cmdline: banger(t, nil), bin: t.TempDir(), root: t.TempDir()}
	i.app.Executable = filepath.Join(i.bin, "banger")
	for _, name := range []string{"banger", "bangerd", "banger-agent"} {
		i.put(filepath.Join(i.bin, name), name+" 1")
	}
	for _, dir := range []string{"etc/systemd/system", "var/lib", "usr/local/bin"} {
		if err := os.MkdirAll(filepath.Join(i.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return i
}

func (i installer) put(path, text string) {
	i.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		i.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		i.t.Fatal(err)
	}
}

// tree lists what is below the root.
func (i installer) tree() []string {
	i.t.Helper()
	var out []string
	err := filepath.WalkDir(i.root, func(path string, e fs.DirEntry, err error) error {
		out = append(out, path)
		return err
	})
	if err != nil {
		i.t.Fatal(err)
	}
	return out
}

func (i installer) unit() string {
	return filepath.Join(i.root, "etc/systemd/system/bangerd.service")
}

func TestSystemInstall(t *testing.T) {
	t.Run("it writes programs, unit, pages and completions; again it writes nothing; and uninstall leaves what was there", func(t *testing.T) {
		i := newInstaller(t)
		before := i.tree()
		dry := i.ok("system", "install", "--root", i.root, "--dry-run").stdout
		if after := i.tree(); !slices.Equal(before, after) {
			t.Errorf("a dry run wrote %q", after)
		}
		if did := i.ok("system", "install", "--root", i.root).stdout; did != dry {
			t.Errorf("the dry run said\n%sand it was\n%s", dry, did)
		}
		for path, mode := range map[string]os.FileMode{
			"usr/local/bin/banger": 0o755, "usr/local/bin/bangerd": 0o755, "usr/local/bin/banger-agent": 0o755,
			"etc/systemd/system/bangerd.service": 0o644, "etc/sysusers.d/banger.conf": 0o644, "etc/tmpfiles.d/banger.conf": 0o644,
			"usr/local/share/man/man1/banger-vm-run.1": 0o644, "usr/local/share/bash-completion/completions/banger": 0o644,
			"usr/local/share/zsh/site-functions/_banger": 0o644, "usr/local/share/fish/vendor_completions.d/banger.fish": 0o644,
			"usr/local/share/man": fs.ModeDir | 0o755, "var/lib/banger": fs.ModeDir | 0o700,
		} {
			if st, err := os.Stat(filepath.Join(i.root, path)); err != nil || st.Mode() != mode {
				t.Errorf("%s: %v, %v", path, st, err)
			}
		}
		if again := i.ok("system", "install", "--root", i.root).stdout; again != "" {
			t.Errorf("again it wrote\n%s", again)
		}
		i.ok("system", "uninstall", "--root", i.root)
		if after := i.tree(); !slices.Equal(before, after) {
			t.Errorf("before: %q\nafter: %q", before, after)
		}
		i.fails(66, "not installed", "system", "uninstall", "--root", i.root)
	})
	t.Run("an upgrade replaces what differs, and removes what is no more", func(t *testing.T) {
		i := newInstaller(t)
		i.ok("system", "install", "--root", i.root)
		i.put(filepath.Join(i.bin, "bangerd"), "bangerd 2")
		old := filepath.Join(i.root, "usr/local/share/man/man1/banger-old.1")
		i.put(old, "old")
		i.record("/usr/local/share/man/man1/banger-old.1", "cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4")
		want := fmt.Sprintf("replace  %s\nremove   %s\n", filepath.Join(i.root, "usr/local/bin/bangerd"), old)
		if got := i.ok("system", "install", "--root", i.root).stdout; got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
	t.Run("without the other programs it is refused", func(t *testing.T) {
		i := newInstaller(t)
		if err := os.Remove(filepath.Join(i.bin, "banger-agent")); err != nil {
			t.Fatal(err)
		}
		i.fails(78, "banger-agent", "system", "install", "--root", i.root)
	})
}

// record adds a file to the manifest, as an earlier version had it.
func (i installer) record(path, digest string) {
	i.t.Helper()
	manifest := filepath.Join(i.root, "var/lib/banger/installed.json")
	b, err := os.ReadFile(manifest)
	if err != nil {
		i.t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		i.t.Fatal(err)
	}
	m["files"].(map[string]any)[path] = []string{digest}
	if b, err = json.Marshal(m); err != nil {
		i.t.Fatal(err)
	}
	i.put(manifest, string(b))
}

func TestSystemKeepsTheUsersFiles(t *testing.T) {
	t.Run("a file that was there is replaced with --force only", func(t *testing.T) {
		i := newInstaller(t)
		i.put(i.unit(), "mine")
		i.fails(73, "bangerd.service", "system", "install", "--root", i.root)
		if len(i.tree()) != len(newInstaller(t).tree())+1 {
			t.Errorf("the refusal left %q", i.tree())
		}
		i.ok("system", "install", "--root", i.root, "--force")
	})
	t.Run("a file that was changed is neither replaced nor removed, and said", func(t *testing.T) {
		i := newInstaller(t)
		i.ok("system", "install", "--root", i.root)
		i.put(i.unit(), "mine")
		if i.fails(73, "bangerd.service", "system", "install", "--root", i.root); !strings.Contains(i.stderr, "systemctl edit") {
			t.Errorf("no hint at drop-ins: %s", i.stderr)
		}
		if err := i.ok("system", "uninstall", "--root", i.root).stderr; !strings.Contains(err, "kept "+i.unit()) {
			t.Errorf("it does not say what it kept: %s", err)
		}
		if b, err := os.ReadFile(i.unit()); string(b) != "mine" {
			t.Errorf("the file is %q (%v)", b, err)
		}
	})
	t.Run("a program that was there and is the same is not removed", func(t *testing.T) {
		i := newInstaller(t)
		there := filepath.Join(i.root, "usr/local/bin/banger")
		i.put(there, "banger 1")
		i.ok("system", "install", "--root", i.root)
		i.ok("system", "uninstall", "--root", i.root)
		if _, err := os.Stat(there); err != nil {
			t.Error(err)
		}
	})
}

func TestSystemPurge(t *testing.T) {
	installed := func(t *testing.T) (installer, string) {
		i := newInstaller(t)
		i.ok("system", "install", "--root", i.root)
		disk := filepath.Join(i.root, "var/lib/banger/vms/0123456789ab/root")
		i.put(disk, "work")
		return i, disk
	}
	t.Run("disks stay", func(t *testing.T) {
		i, disk := installed(t)
		i.ok("system", "uninstall", "--root", i.root)
		if !strings.Contains(i.stderr, "--purge") {
			t.Errorf("it does not say how to remove the rest: %s", i.stderr)
		}
		if _, err := os.Stat(disk); err != nil {
			t.Error(err)
		}
		i.ok("system", "uninstall", "--root", i.root, "--purge", "--yes")
		if _, err := os.Stat(disk); err == nil {
			t.Error("purged later, the disk is still there")
		}
	})
	t.Run("it asks, and removes nothing unless the answer is yes", func(t *testing.T) {
		i, disk := installed(t)
		i.fails(64, "nobody can be asked", "system", "uninstall", "--root", i.root, "--purge")
		i.app.InTTY = true
		i.stdin("n\n")
		if i.fails(130, "nothing was removed", "system", "uninstall", "--root", i.root, "--purge"); !strings.Contains(i.stderr, "the disks of 1 VMs") {
			t.Errorf("it does not list what goes: %s", i.stderr)
		}
		if _, err := os.Stat(disk); err != nil {
			t.Error(err)
		}
		i.stdin("y\n")
		i.ok("system", "uninstall", "--root", i.root, "--purge")
		if _, err := os.Stat(filepath.Join(i.root, "var/lib/banger")); err == nil {
			t.Error("the state is still there")
		}
	})
	t.Run("it is refused while a machine runs, which --orphan leaves running", func(t *testing.T) {
		i, disk := installed(t)
		started, err := host.StartTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		handle := filepath.Join(filepath.Dir(disk), "machine.json")
		i.put(handle, fmt.Sprintf(`{"pid":%d,"start_time":%d}`, os.Getpid(), started))
		i.fails(78, "VMs run: 1", "system", "uninstall", "--root", i.root)
		i.fails(78, "VMs run: 1", "system", "uninstall", "--root", i.root, "--purge", "--yes")
		i.fails(64, "orphan", "system", "uninstall", "--root", i.root, "--purge", "--orphan")
		i.ok("system", "uninstall", "--root", i.root, "--orphan")
		i.put(handle, fmt.Sprintf(`{"pid":%d,"start_time":%d}`, os.Getpid(), started+1))
		i.ok("system", "uninstall", "--root", i.root, "--purge", "-y")
	})
}

func TestSystemNeedsSystemd(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Skip("systemd runs here, and this host is not to be touched")
	}
	i := newInstaller(t)
	for _, verb := range []string{"install", "uninstall"} {
		if i.fails(78, "systemd does not run", "system", verb); !strings.Contains(i.stderr, "hint: ") {
			t.Errorf("no hint: %s", i.stderr)
		}
	}
	if out := i.ok("system", "install", "--dry-run").stdout; !strings.Contains(out, "systemctl --quiet enable bangerd.service") {
		t.Errorf("the dry run does not say what would be run:\n%s", out)
	}
	i.fails(66, "not installed", "system", "status", "-o", "json", "-q", "--format", "x")
}

func TestMembersOfTheGroup(t *testing.T) {
	t.Run("their patches are in their own directories", func(t *testing.T) {
		c := banger(t, nil).env(map[string]string{"HOME": "/home/ann", "BANGER_SYSTEM": "1"})
		if dir, err := c.app.PatchesDir(); err != nil || dir != "/home/ann/.local/state/banger/patches" {
			t.Errorf("got %s (%v)", dir, err)
		}
	})
	t.Run("ssh's configuration keeps the choice of the daemon", func(t *testing.T) {
		c := banger(t, nil).env(map[string]string{"HOME": "/home/ann", "BANGER_SYSTEM": "0"})
		for _, want := range []string{"ProxyCommand env BANGER_SYSTEM=0 ", "KnownHostsCommand /usr/bin/env BANGER_SYSTEM=0 "} {
			if out := c.ok("ssh-config").stdout; !strings.Contains(out, want) {
				t.Errorf("no %q in\n%s", want, out)
			}
		}
	})
	t.Run("the system's daemon is not started for them", func(t *testing.T) {
		if _, err := os.Stat("/run/banger"); err == nil {
			t.Skip("banger is installed here")
		}
		for _, args := range [][]string{{"ps"}, {"daemon", "start"}} {
			c := banger(t, nil).env(map[string]string{"BANGER_SYSTEM": "1", "BANGER_NO_START": ""})
			if c.fails(69, "/run/banger/bangerd.sock", args...); !strings.Contains(c.stderr, "sudo systemctl start bangerd") {
				t.Errorf("no hint: %s", c.stderr)
			}
		}
	})
	t.Run("the daemon's key is not theirs to read, and ssh is not tried without", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Skip("root may read everything")
		}
		key := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(key, nil, 0); err != nil {
			t.Fatal(err)
		}
		d := fakedaemon.Start(t)
		d.Result(api.MethodVMSSH, api.VMSSH{Name: "web", User: "root", Identity: key})
		if c := banger(t, d).fails(77, "key", "ssh", "web"); !strings.Contains(c.stderr, "banger vm exec") {
			t.Errorf("no hint: %s", c.stderr)
		}
	})
}
