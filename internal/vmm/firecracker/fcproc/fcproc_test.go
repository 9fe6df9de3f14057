package fcproc_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/firecracker/fcproc"
)

// program writes a shell script that prints a line for every question.
func program(t *testing.T, says string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+says+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFind(t *testing.T) {
	fire := program(t, "echo Firecracker v1.16.1; echo; echo 2026-01-01 exiting")
	jailer, old := program(t, "echo Jailer v1.16.1"), program(t, "echo Jailer v1.14.0")
	for _, c := range []struct {
		name    string
		in      fcproc.Config
		jailed  bool
		problem string // part of its detail; empty: none
	}{
		{"one that is missing", fcproc.Config{Firecracker: "/nowhere/firecracker"}, false, `no program "/nowhere/firecracker"`},
		{"one that is too old", fcproc.Config{Firecracker: program(t, "echo Firecracker v1.9.1")}, false, "Firecracker 1.9.1 at "},
		{"the oldest that we take", fcproc.Config{Firecracker: program(t, "echo Firecracker v1.10.0"), UseJailer: "off"}, false, ""},
		{"another program", fcproc.Config{Firecracker: jailer}, false, "does not tell the version of Firecracker"},
		{"one that does not run", fcproc.Config{Firecracker: program(t, "echo no libc >&2; exit 127")}, false, "no libc"},
		{"auto jails where root may", fcproc.Config{Firecracker: fire, Jailer: jailer, UseJailer: "auto", Root: true}, true, ""},
		{"auto does not jail where only root may", fcproc.Config{Firecracker: fire, Jailer: jailer, UseJailer: "auto"}, false, ""},
		{"auto does without a jailer of another version", fcproc.Config{Firecracker: fire, Jailer: old, UseJailer: "auto", Root: true}, false, ""},
		{"auto does without a jailer that is missing", fcproc.Config{Firecracker: fire, Jailer: "/nowhere/jailer", UseJailer: "auto", Root: true}, false, ""},
		{"who insists on the jailer gets it", fcproc.Config{Firecracker: fire, Jailer: jailer, UseJailer: "on", Root: true}, true, ""},
		{"who insists on one of another version is refused", fcproc.Config{Firecracker: fire, Jailer: old, UseJailer: "on", Root: true}, false, "of version 1.14.0"},
		{"who insists and is not root is refused", fcproc.Config{Firecracker: fire, Jailer: jailer, UseJailer: "on"}, false, "only root"},
		{"who wants none gets none", fcproc.Config{Firecracker: fire, Jailer: jailer, UseJailer: "off", Root: true}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			tools, found := fcproc.Find(t.Context(), c.in)
			if (tools.Jailer != "") != c.jailed {
				t.Errorf("jailer %q", tools.Jailer)
			}
			switch {
			case c.problem == "" && len(found) > 0:
				t.Errorf("problems %+v", found)
			case c.problem != "" && (len(found) != 1 || !strings.Contains(found[0].Detail, c.problem) || !strings.Contains(found[0].Fix, "looks again")):
				t.Errorf("problems %+v, want %q", found, c.problem)
			}
		})
	}
}

// vm is a VM with a kernel, an initrd and a place for the jail.
func vm(t *testing.T) vmm.Spec {
	t.Helper()
	s := vmm.Spec{ID: banger.NewID[banger.VMID](), Dir: t.TempDir(), RunDir: t.TempDir()}
	s.Kernel, s.Initrd = filepath.Join(s.Dir, "vmlinux"), filepath.Join(s.Dir, "initrd")
	for path, mode := range map[string]os.FileMode{s.Kernel: 0o444, s.Initrd: 0o600} {
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func owner(st os.FileInfo) int { return int(st.Sys().(*syscall.Stat_t).Uid) }

func TestPlainCell(t *testing.T) {
	s := vm(t)
	c := fcproc.NewCell(fcproc.Tools{Firecracker: "/bin/firecracker"}, s)
	if err := c.Open(); err != nil {
		t.Fatal(err)
	}
	path, err := c.Bring(s.Kernel, "kernel", true)
	if err != nil || path != s.Kernel {
		t.Errorf("the kernel is %q, %v", path, err)
	}
	want := []string{"/bin/firecracker", "--id", string(s.ID), "--api-sock", "api.sock", "--level", "Warning", "--log-path", s.Dir + "/vmm.log"}
	if got := c.Argv(); !slices.Equal(got, want) {
		t.Errorf("argv %q", got)
	}
	if got := c.Socket(fcproc.AgentSocket(s.RunDir)); got != "agent.sock" || c.Dir() != s.RunDir {
		t.Errorf("socket %q in %q", got, c.Dir())
	}
}

func TestJail(t *testing.T) {
	tools := fcproc.Tools{Firecracker: "/bin/firecracker", Jailer: "/bin/jailer"}
	t.Run("is made of links, and leaves what was linked", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root gives files to a jail's user")
		}
		s := vm(t)
		c := fcproc.NewCell(tools, s)
		if err := c.Open(); err != nil {
			t.Fatal(err)
		}
		root := filepath.Join(s.Dir, "jail", "firecracker", string(s.ID), "root")
		for _, f := range []struct {
			path, name string
			readOnly   bool
			owner      bool // it changes
		}{{s.Kernel, "kernel", true, false}, {s.Initrd, "initrd", false, true}} {
			inside, err := c.Bring(f.path, f.name, f.readOnly)
			if err != nil || inside != "/"+f.name {
				t.Fatalf("%s is %q, %v", f.name, inside, err)
			}
			a, _ := os.Stat(f.path)
			b, err := os.Stat(filepath.Join(root, f.name))
			if err != nil || !os.SameFile(a, b) {
				t.Errorf("%s is not the same file: %v", f.name, err)
			}
			if changed := owner(b) != os.Geteuid(); changed != f.owner {
				t.Errorf("%s belongs to %d", f.name, owner(b))
			}
		}
		if err := os.MkdirAll(filepath.Join(root, "dev", "net"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "dev", "net", "tun"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // it may be repeated
			if err := fcproc.CleanUp(s.Dir, s.RunDir); err != nil {
				t.Fatal(err)
			}
		}
		for _, dir := range []string{filepath.Join(s.Dir, "jail"), fcproc.APISocket(s.RunDir)} {
			if _, err := os.Lstat(dir); err == nil {
				t.Errorf("left: %s", dir)
			}
		}
		for _, path := range []string{s.Kernel, s.Initrd} {
			if _, err := os.Stat(path); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("a shared file that its user could not read is refused", func(t *testing.T) {
		s := vm(t)
		c := fcproc.NewCell(tools, s)
		if err := os.MkdirAll(filepath.Join(s.Dir, "jail", "firecracker", string(s.ID), "root"), 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := c.Bring(s.Initrd, "modules", true)
		if !errkind.Is(err, api.KindPrecondition) || !strings.Contains(errkind.Hint(err), "jailer") {
			t.Errorf("got %v, hint %q", err, errkind.Hint(err))
		}
	})
	t.Run("what is in the way is not removed", func(t *testing.T) {
		s := vm(t)
		precious := filepath.Join(s.Dir, "jail", "firecracker", string(s.ID), "root", "home", "precious")
		if err := os.MkdirAll(precious, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := fcproc.CleanUp(s.Dir, s.RunDir); err == nil {
			t.Error("no error")
		}
		if _, err := os.Stat(precious); err != nil {
			t.Error(err)
		}
	})
	t.Run("every VM has a user of its own, whom nobody else is", func(t *testing.T) {
		users := map[string]bool{}
		for range 100 {
			argv := fcproc.NewCell(tools, vmm.Spec{ID: banger.NewID[banger.VMID](), Dir: "/d", RunDir: "/r"}).Argv()
			user := argv[slices.Index(argv, "--uid")+1]
			if user != argv[slices.Index(argv, "--gid")+1] || len(user) != len("1879048192") || user < "1879048192" || user > "2013265919" {
				t.Errorf("user %s in %q", user, argv)
			}
			users[user] = true
		}
		if len(users) < 99 {
			t.Errorf("%d users for 100 VMs", len(users))
		}
	})
}

func TestRuns(t *testing.T) {
	s := vmm.Spec{ID: "0123456789ab", Dir: "/d", RunDir: "/r"}
	for _, tools := range []fcproc.Tools{{Firecracker: "/bin/firecracker"}, {Firecracker: "/bin/firecracker", Jailer: "/bin/jailer"}} {
		line := strings.Join(fcproc.NewCell(tools, s).Argv(), "\x00") + "\x00"
		if !fcproc.Runs(line, "0123456789ab") || fcproc.Runs(line, "ffffffffffff") {
			t.Errorf("%q", line)
		}
	}
	if !fcproc.Runs("./firecracker\x00--id=0123456789ab\x00--api-sock\x00/api.sock\x00", "0123456789ab") {
		t.Error("what the jailer makes of it is not known")
	}
	if fcproc.Runs("vim\x00--id\x000123456789ab\x00", "0123456789ab") {
		t.Error("another program is taken for it")
	}
}
