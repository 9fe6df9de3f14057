package boot

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/guestnet"
)

// image makes an etc on a root with the given files, or symbolic links where a text begins with "->".
func image(t *testing.T, files map[string]string) etc {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if len(text) > 2 && text[:2] == "->" {
			err = os.Symlink(text[2:], path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return etc{root: root, cfg: guestapi.BootConfig{
		Name: "blue-fox", Init: guestapi.InitAgent, MachineID: "0123456789abcdef0123456789abcdef", Timezone: "Europe/Berlin",
		Net: &guestapi.Net{DNS: []string{"10.0.2.3"}, Search: "vm"},
	}}
}

func read(t *testing.T, e etc, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(e.root, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(b)
}

func TestFilesOfThisVM(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef\n"
	ours := "127.0.1.1\tblue-fox\t# banger\n"
	local := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	tests := []struct {
		name, file, before, after string
		write                     func(etc) error
	}{
		{"a host name that is missing", "etc/hostname", "", "blue-fox\n", etc.hostname},
		{"a host name of the image's", "etc/hostname", "builder\n", "blue-fox\n", etc.hostname},
		{"hosts that are missing", "etc/hosts", "", local + ours, etc.hosts},
		{"hosts of the image's", "etc/hosts", "127.0.0.1 localhost\n10.1.1.1 db", "127.0.0.1 localhost\n10.1.1.1 db\n" + ours, etc.hosts},
		{"hosts of another boot", "etc/hosts", "1.1.1.1 one\n127.0.1.1\told\t# banger\n", "1.1.1.1 one\n" + ours, etc.hosts},
		{"a machine id that is missing", "etc/machine-id", "", id, etc.machineID},
		{"a machine id left open", "etc/machine-id", "uninitialized\n", id, etc.machineID},
		{"a machine id of the image's", "etc/machine-id", "ffff\n", "ffff\n", etc.machineID},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string]string{}
			if tt.before != "" {
				files[tt.file] = tt.before
			}
			e := image(t, files)
			for range 2 { // the second boot of the same disk changes nothing
				if err := tt.write(e); err != nil {
					t.Fatal(err)
				}
				if got := read(t, e, tt.file); got != tt.after {
					t.Errorf("%s is %q, want %q", tt.file, got, tt.after)
				}
			}
		})
	}
}

func TestResolvConf(t *testing.T) {
	ours := guestnet.Mark + "search vm\nnameserver 10.0.2.3\n"
	t.Run("missing", func(t *testing.T) {
		e := image(t, nil)
		if err := e.resolvConf(); err != nil || read(t, e, "etc/resolv.conf") != ours {
			t.Fatalf("%q, %v", read(t, e, "etc/resolv.conf"), err)
		}
	})
	t.Run("ours from another boot", func(t *testing.T) {
		e := image(t, map[string]string{"etc/resolv.conf": guestnet.Mark + "nameserver 10.9.9.9\n"})
		if err := e.resolvConf(); err != nil || read(t, e, "etc/resolv.conf") != ours {
			t.Fatalf("%q, %v", read(t, e, "etc/resolv.conf"), err)
		}
	})
	t.Run("a link whose target does not exist", func(t *testing.T) {
		for _, target := range []string{"../run/systemd/resolve/stub-resolv.conf", "/run/systemd/resolve/stub-resolv.conf"} {
			e := image(t, map[string]string{"etc/resolv.conf": "->" + target})
			if err := e.resolvConf(); err != nil || read(t, e, "run/systemd/resolve/stub-resolv.conf") != ours {
				t.Fatalf("%s: %q, %v", target, read(t, e, "run/systemd/resolve/stub-resolv.conf"), err)
			}
			if link, err := os.Readlink(e.path("resolv.conf")); err != nil || link != target {
				t.Errorf("the link leads to %q now, %v", link, err)
			}
		}
	})
	t.Run("another init finds the servers where systemd-resolved looks", func(t *testing.T) {
		e := image(t, nil)
		e.cfg.Init = "/sbin/init"
		if err := e.resolvConf(); err != nil || read(t, e, "etc/resolv.conf") != ours {
			t.Fatalf("%q, %v", read(t, e, "etc/resolv.conf"), err)
		}
		if got := read(t, e, "run/systemd/resolved.conf.d/banger.conf"); got != "[Resolve]\nDNS=10.0.2.3\n" {
			t.Errorf("the drop-in for systemd-resolved is %q", got)
		}
	})
}

func TestLocaltime(t *testing.T) {
	t.Run("a zone the image knows", func(t *testing.T) {
		e := image(t, map[string]string{"usr/share/zoneinfo/Europe/Berlin": "TZif", "etc/x": "x"})
		if err := e.localtime(); err != nil {
			t.Fatal(err)
		}
		if link, _ := os.Readlink(e.path("localtime")); link != "/usr/share/zoneinfo/Europe/Berlin" {
			t.Errorf("localtime leads to %q", link)
		}
	})
	t.Run("a zone it does not know, or none", func(t *testing.T) {
		e := image(t, map[string]string{"etc/x": "x"})
		if err := e.localtime(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(e.path("localtime")); !os.IsNotExist(err) {
			t.Error("a localtime appeared")
		}
	})
}
