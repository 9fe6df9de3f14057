package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/errkind"
)

func env(kv ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(kv); i += 2 {
			if kv[i] == name {
				return kv[i+1], true
			}
		}
		return "", false
	}
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func values(c *config.Config) map[string]api.ConfigValue {
	out := map[string]api.ConfigValue{}
	for _, v := range c.Values() {
		out[v.Key] = v
	}
	return out
}

func TestLoad(t *testing.T) {
	t.Run("without anything it is the default, which is valid", func(t *testing.T) {
		c, err := config.Load(filepath.Join(t.TempDir(), "none"), env(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range c.Values() {
			if v.Origin != "default" {
				t.Errorf("%+v", v)
			}
		}
		if c.VMDefaults.Memory != 1<<30 || !c.Network.NAT {
			t.Errorf("%+v", c)
		}
	})

	t.Run("each layer wins over the one before, and says so", func(t *testing.T) {
		path := file(t, "vmm = 'qemu'\nlog_level = 'warn'\n[vm_defaults]\nmemory = '2G'\nvcpu = 2\ndisk_size = 1073741824\n[network]\nnat = false\n")
		c, err := config.Load(path, env("BANGER_VM_DEFAULTS_MEMORY", "512MiB", "BANGER_LOG_LEVEL", "error", "BANGER_DISK_CLONER", "copy"),
			map[string]string{"log_level": "debug"})
		if err != nil {
			t.Fatal(err)
		}
		got := values(c)
		for _, want := range []api.ConfigValue{
			{Key: "vmm", Value: "qemu", Origin: "file " + path},
			{Key: "log_level", Value: "debug", Origin: "flag"},
			{Key: "vm_defaults.memory", Value: "512MiB", Origin: "environment BANGER_VM_DEFAULTS_MEMORY"},
			{Key: "vm_defaults.vcpu", Value: "2", Origin: "file " + path},
			{Key: "vm_defaults.disk_size", Value: "1GiB", Origin: "file " + path},
			{Key: "network.nat", Value: "false", Origin: "file " + path},
			{Key: "disk.cloner", Value: "copy", Origin: "environment BANGER_DISK_CLONER"},
			{Key: "kernel", Value: "", Origin: "default"},
		} {
			if got[want.Key] != want {
				t.Errorf("got %+v, want %+v", got[want.Key], want)
			}
		}
		if c.VMDefaults.Memory != 512<<20 || c.Network.NAT || c.VMDefaults.VCPU != 2 {
			t.Errorf("%+v", c)
		}
	})

	for _, c := range []struct {
		name, file string
		env        []string
		flags      map[string]string
		want       []string
	}{
		{name: "an unknown key names the nearest and its line", file: "vmm = 'auto'\nlog_levle = 'info'\n", want: []string{"config.toml:2", `"log_levle"`, `"log_level"`}},
		{name: "a key in the wrong table names the right one", file: "memory = '1G'\n", want: []string{"config.toml:1", `"vm_defaults.memory"`}},
		{name: "an unknown table names the nearest", file: "[netwrok]\nmode = 'user'\n", want: []string{"netwrok", `"network"`}},
		{name: "a key like no other has a hint all the same", file: "zzzzzzzzzzzz = 1\n", want: []string{"zzzzzzzzzzzz", "banger config show"}},
		{name: "bad TOML names the line", file: "vmm = 'auto'\n[network\n", want: []string{"config.toml:2"}},
		{name: "a key given twice is refused", file: "vmm = 'auto'\nvmm = 'qemu'\n", want: []string{"config.toml", "vmm"}},
		{name: "a value of the wrong type names the line", file: "\n[vm_defaults]\nvcpu = 'two'\n", want: []string{"config.toml:3"}},
		{name: "a bad size in the file says how to write one", file: "[vm_defaults]\nmemory = 'lots'\n", want: []string{"config.toml:2", `"lots"`}},
		{name: "bytes where MiB were meant", file: "[vm_defaults]\nmemory = 512\n", want: []string{"vm_defaults.memory", "config.toml", "512M"}},
		{name: "a negative size", file: "[vm_defaults]\nroot_size = -1\n", want: []string{"vm_defaults.root_size"}},
		{name: "an unknown choice lists the choices", file: "[network]\nmode = 'bridged'\n", want: []string{"network.mode", `"bridged"`, "auto, user"}},
		{name: "a bad number in the environment names the variable", env: []string{"BANGER_VM_DEFAULTS_VCPU", "x"}, want: []string{"BANGER_VM_DEFAULTS_VCPU", `"x"`}},
		{name: "no processors", env: []string{"BANGER_VM_DEFAULTS_VCPU", "0"}, want: []string{"BANGER_VM_DEFAULTS_VCPU", "less than 1"}},
		{name: "an empty value in the environment", env: []string{"BANGER_VMM", ""}, want: []string{"BANGER_VMM", "empty"}},
		{name: "a bad boolean", env: []string{"BANGER_NETWORK_NAT", "maybe"}, want: []string{"maybe"}},
		{name: "an unknown flag", flags: map[string]string{"vm": "qemu"}, want: []string{`"vm"`, `"vmm"`}},
	} {
		t.Run(c.name+" is invalid", func(t *testing.T) {
			_, err := config.Load(file(t, c.file), env(c.env...), c.flags)
			if !errkind.Is(err, api.KindInvalid) {
				t.Fatalf("got %v of kind %q", err, errkind.Of(err))
			}
			for _, w := range c.want {
				if text := err.Error() + "\n" + errkind.Hint(err); !strings.Contains(text, w) {
					t.Errorf("%q does not say %q", text, w)
				}
			}
		})
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "4096": 4096, "512M": 512 << 20, "512MiB": 512 << 20, "512 mib": 512 << 20, "2G": 2 << 30, "2GB": 2 << 30,
		"1.5g": 3 << 29, "10K": 10 << 10, "1T": 1 << 40, " 1G ": 1 << 30, "100B": 100,
	} {
		if got, err := config.ParseSize(text); err != nil || got != want {
			t.Errorf("%q is %d (%v), want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "G", "-1", "-1G", "1X", "1.5", "1e9", "999999999999999999T", "8388608T", "0x10", "1 G B", "½G", "inf"} {
		if got, err := config.ParseSize(text); !errkind.Is(err, api.KindInvalid) {
			t.Errorf("%q is %d (%v)", text, got, err)
		}
	}
	for size, want := range map[config.Size]string{0: "0", 1: "1", 1 << 30: "1GiB", 3 << 29: "1536MiB", 1 << 50: "1024TiB", 1025: "1025"} {
		if got := size.String(); got != want {
			t.Errorf("%d is %q, want %q", int64(size), got, want)
		}
		if back, err := config.ParseSize(size.String()); err != nil || config.Size(back) != size {
			t.Errorf("%q comes back as %d (%v)", size, back, err)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	f.Add("1.5G")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := config.ParseSize(text)
		if err == nil && n < 0 {
			t.Errorf("%q is %d", text, n)
		}
	})
}

func TestFindPaths(t *testing.T) {
	for _, c := range []struct {
		name string
		env  []string
		want config.Paths
	}{
		{"BANGER_ROOT wins over all", []string{"BANGER_ROOT", "/tmp/b", "BANGER_SYSTEM", "1", "HOME", "/home/me"},
			config.Paths{Root: "/tmp/b", State: "/tmp/b/state", Run: "/tmp/b/run", Cache: "/tmp/b/cache", Etc: "/tmp/b/etc"}},
		{"system mode is asked for", []string{"BANGER_SYSTEM", "1", "HOME", "/root"},
			config.Paths{State: "/var/lib/banger", Run: "/run/banger", Cache: "/var/cache/banger", Etc: "/etc/banger", System: true}},
		{"a home directory is enough", []string{"HOME", "/home/me"},
			config.Paths{State: "/home/me/.local/state/banger", Run: "/home/me/.local/state/banger/run", Cache: "/home/me/.cache/banger", Etc: "/home/me/.config/banger"}},
		{"XDG variables are heeded when absolute", []string{"HOME", "/home/me", "XDG_STATE_HOME", "/s", "XDG_CACHE_HOME", "c"},
			config.Paths{State: "/s/banger", Run: "/s/banger/run", Cache: "/home/me/.cache/banger", Etc: "/home/me/.config/banger"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := config.FindPaths(env(c.env...))
			if err != nil || got != c.want {
				t.Errorf("got %+v (%v), want %+v", got, err, c.want)
			}
		})
	}
	for _, c := range []struct {
		name  string
		env   []string
		enter bool
		want  string // State
	}{
		{"who may enter the system's directory talks to the system's daemon", []string{"HOME", "/home/me"}, true, "/var/lib/banger"},
		{"who may not has a daemon of his own", []string{"HOME", "/home/me"}, false, "/home/me/.local/state/banger"},
		{"BANGER_SYSTEM=0 asks for one's own", []string{"HOME", "/home/me", "BANGER_SYSTEM", "0"}, true, "/home/me/.local/state/banger"},
		{"BANGER_SYSTEM=1 asks for the system's", []string{"HOME", "/home/me", "BANGER_SYSTEM", "1"}, false, "/var/lib/banger"},
		{"BANGER_ROOT asks for that", []string{"BANGER_ROOT", "/tmp/b"}, true, "/tmp/b/state"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := config.ClientPaths(env(c.env...), func(dir string) bool { return c.enter && dir == "/run/banger" })
			if err != nil || got.State != c.want || got.System != (c.want == "/var/lib/banger") {
				t.Errorf("got %+v (%v), want state %s", got, err, c.want)
			}
		})
	}
	for name, kv := range map[string][]string{
		"no home":  {},
		"too long": {"BANGER_ROOT", "/" + strings.Repeat("x", 80)},
	} {
		t.Run(name+" is an error that names BANGER_ROOT", func(t *testing.T) {
			_, err := config.FindPaths(env(kv...))
			if !errkind.Is(err, api.KindInvalid) || !strings.Contains(errkind.Hint(err), "BANGER_ROOT") {
				t.Errorf("got %v, hint %q", err, errkind.Hint(err))
			}
		})
	}
	t.Run("the longest root that is accepted leaves room for a VM's sockets", func(t *testing.T) {
		root := "/"
		for {
			p, err := config.FindPaths(env("BANGER_ROOT", root))
			if err != nil {
				break
			}
			if n := len(filepath.Join(p.VMRunDir("0123456789ab"), strings.Repeat("s", 16))); n > 107 {
				t.Fatalf("a socket's path has %d bytes", n)
			}
			root += "x"
		}
		if len(root) < 50 {
			t.Errorf("a root of %d bytes is refused", len(root))
		}
	})
}

func TestMake(t *testing.T) {
	root := t.TempDir()
	p, err := config.FindPaths(env("BANGER_ROOT", filepath.Join(root, "b")))
	if err != nil {
		t.Skip("the temporary directory's path is too long for sockets: " + root)
	}
	for range 2 {
		if err := p.Make(); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{p.State, p.Run, p.Cache, p.Etc, p.VMsDir(), p.VMRunsDir(), p.KeysDir(), filepath.Dir(p.Socket()),
		filepath.Dir(p.DB()), filepath.Dir(p.SSHKey()), filepath.Dir(p.ConfigFile())} {
		st, err := os.Stat(dir)
		if err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, st, err)
		}
	}
	t.Run("a link in the place of a directory is refused", func(t *testing.T) {
		if err := os.Remove(p.PatchesDir()); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(t.TempDir(), p.PatchesDir()); err != nil {
			t.Fatal(err)
		}
		if err := p.Make(); !errkind.Is(err, api.KindPermission) {
			t.Errorf("got %v", err)
		}
	})
}
