package kernels

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/opstate"
)

func TestDefaultName(t *testing.T) {
	for from, want := range map[api.KernelImport]string{
		{Host: true}:                                                               "host",
		{Deb: "linux-image-cloud-amd64"}:                                           "debian-cloud",
		{Deb: "linux-image-amd64"}:                                                 "debian",
		{Deb: "linux-image-6.1.0-56-rt-amd64-unsigned"}:                            "debian-rt",
		{Deb: "linux-image-6.12.9+deb13-cloud-amd64"}:                              "debian-cloud",
		{Deb: "/x/linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb"}:           "debian-cloud",
		{Deb: "/x/linux-image-6.8.0-31-generic_6.8.0-31.31_amd64.deb"}:             "debian-generic",
		{Deb: "my-kernel"}:                                                         "my-kernel",
		{Path: "/src/linux/vmlinux"}:                                               "vmlinux",
		{Path: "/boot/vmlinuz-6.1.0-56-cloud-amd64"}:                               "vmlinuz-6-1-0-56-cloud-amd64",
		{Path: "/x/6.9"}:                                                           "kernel-6-9",
		{Path: "/x/---"}:                                                           "kernel",
		{Path: "/x/" + strings.Repeat("long-", 20)}:                                strings.Repeat("long-", 12) + "lon",
		{Path: "/x/" + strings.Repeat("a", 62) + "-b"}:                             strings.Repeat("a", 62),
		{Path: "/x/ünïcode"}:                                                       "n-code",
		{Deb: "/x/linux-image-" + strings.Repeat("5", 80) + "_1_amd64.deb"}:        "debian",
		{Deb: "linux-image-cloud-amd64=6.1.192-2"}:                                 "debian-cloud",
		{Deb: "linux-image-cloud-amd64/bookworm-backports"}:                        "debian-cloud",
		{Path: "/x/bzImage"}:                                                       "bzimage",
		{Deb: "/home/me/my kernels/linux-image-6.1.0-1-cloud-amd64_6.1_amd64.deb"}: "debian-cloud",
	} {
		got := defaultName(from)
		if got != want || banger.CheckName("kernel", got) != nil {
			t.Errorf("%+v is called %q, want %q", from, got, want)
		}
	}
}

func TestBadSources(t *testing.T) {
	m, _ := newManager(t)
	dir := t.TempDir()
	text := filepath.Join(dir, "text.deb")
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		p    api.KernelImport
		kind api.ErrorKind
	}{
		{"none", api.KernelImport{}, api.KindInvalid},
		{"two", api.KernelImport{Host: true, Path: "/x"}, api.KindInvalid},
		{"three", api.KernelImport{Host: true, Path: "/x", Deb: "y"}, api.KindInvalid},
		{"modules of a package", api.KernelImport{Deb: "y", Modules: "/x"}, api.KindInvalid},
		{"a relative kernel", api.KernelImport{Path: "x"}, api.KindInvalid},
		{"a relative package", api.KernelImport{Deb: "x.deb"}, api.KindInvalid},
		{"relative modules", api.KernelImport{Path: "/x", Modules: "x"}, api.KindInvalid},
		{"an option of apt's", api.KernelImport{Deb: "-oDebug=1"}, api.KindInvalid},
		{"a bad name", api.KernelImport{Path: "/x", Name: "Not A Name"}, api.KindInvalid},
		{"a kernel that is missing", api.KernelImport{Path: "/no/such/file"}, api.KindNotFound},
		{"modules that are missing", api.KernelImport{Path: text, Modules: "/no/such/dir"}, api.KindNotFound},
		{"a configuration that is missing", api.KernelImport{Path: text, Config: "/no/such/file"}, api.KindNotFound},
		{"a package that is missing", api.KernelImport{Deb: "/no/such/file.deb"}, api.KindNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := m.Import(t.Context(), c.p, opstate.Discard)
			wantError(t, err, c.kind)
			if l := left(t, m); len(l) > 0 {
				t.Errorf("left %v", l)
			}
		})
	}
	t.Run("a file that is no package", func(t *testing.T) {
		require(t, "dpkg-deb")
		if _, err := m.Import(t.Context(), api.KernelImport{Name: "x", Deb: text}, opstate.Discard); err == nil || !strings.Contains(err.Error(), "dpkg-deb") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a package without a kernel", func(t *testing.T) {
		_, err := m.Import(t.Context(), api.KernelImport{Deb: deb(t, map[string][]byte{"etc/x": nil})}, opstate.Discard)
		wantError(t, err, api.KindInvalid, "0 kernels", DefaultPackage)
	})
}

func TestHostSource(t *testing.T) {
	root := lay(t, system(t, goodConfig()))
	t.Run("finds kernel, modules and configuration", func(t *testing.T) {
		s, err := hostSource(root, release)
		if err != nil || s.modules == "" || s.ours {
			t.Errorf("%+v, %v", s, err)
		}
		config, err := s.configuration()
		if err != nil || facts(config)["EXT4_FS"] != "m" {
			t.Errorf("%s, %v", config, err)
		}
	})
	t.Run("names what is missing and what to do", func(t *testing.T) {
		_, err := hostSource(root, "7.0")
		wantError(t, err, api.KindNotFound, "running kernel", "--deb")
		if err := os.RemoveAll(filepath.Join(root, "lib")); err != nil {
			t.Fatal(err)
		}
		_, err = hostSource(root, release)
		wantError(t, err, api.KindNotFound, "modules of the running kernel")
	})
}

func TestMetapackages(t *testing.T) {
	for _, c := range []struct{ name, record, want string }{
		{"are resolved to the exact version", "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n",
			"linux-image-6.1.0-56-cloud-amd64=6.1.192-2"},
		{"are resolved without one", "Depends: linux-base, linux-image-6.8.0-31-generic, linux-firmware\n", "linux-image-6.8.0-31-generic"},
		{"are not real kernels", "Package: linux-image-6.1.0-56-cloud-amd64\nDepends: kmod, linux-base (>= 4.3~), initramfs-tools | linux-initramfs-tool\n" +
			"Breaks: linux-image-6.0.0-1 (= 1)\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := dependsOnKernel(c.record); got != c.want {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestWaitingForAptEndsWithTheContext(t *testing.T) {
	m, _ := newManager(t)
	m.apt <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := m.Import(ctx, api.KernelImport{Deb: DefaultPackage}, opstate.Discard)
	wantError(t, err, api.KindCanceled)
}
