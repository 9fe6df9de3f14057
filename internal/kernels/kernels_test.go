package kernels

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/disk/disktest"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/kernels/kerneltest"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/google/go-cmp/cmp"
)

// memory is a store.
type memory struct {
	mu   sync.Mutex
	all  []banger.Kernel
	fail error // of PutKernel
}

func (s *memory) PutKernel(_ context.Context, k banger.Kernel) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.all = append(s.all, k)
	return nil
}

func (s *memory) GetKernel(_ context.Context, ref string) (banger.Kernel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.all {
		if k.Name == ref || strings.HasPrefix(string(k.ID), ref) {
			return k, nil
		}
	}
	return banger.Kernel{}, errkind.New(api.KindNotFound, "no kernel %q", ref)
}

func (s *memory) ListKernels(context.Context) ([]banger.Kernel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all), nil
}

func (s *memory) DeleteKernel(_ context.Context, id banger.KernelID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(k banger.Kernel) bool { return k.ID == id })
	return nil
}

func newManager(t *testing.T) (*Manager, *memory) {
	t.Helper()
	s := &memory{}
	return New(Config{Dir: t.TempDir(), CacheDir: t.TempDir(), Store: s, Bases: &cache{}, Log: slog.New(slog.DiscardHandler)}), s
}

// cache is a cache of bases that remembers what it was told.
type cache struct {
	forgotten, known []banger.KernelID
	err              error
}

func (c *cache) Forget(id banger.KernelID) error {
	c.forgotten = append(c.forgotten, id)
	return c.err
}

func (c *cache) Sweep(known []banger.KernelID) error {
	c.known = known
	return c.err
}

const release = "6.1.0-9-test-amd64"

// goodConfig is the configuration of a kernel that can serve, with modules.
func goodConfig() map[string]string {
	c := map[string]string{"LOCALVERSION": `"-test"`}
	for name := range options() {
		c[name] = "y"
	}
	for _, name := range []string{"VIRTIO_MMIO", "VIRTIO_BLK", "VIRTIO_NET", "VIRTIO_CONSOLE", "EXT4_FS"} {
		c[name] = "m"
	}
	delete(c, "IP_PNP")
	return c
}

func configText(c map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c)) {
		b.WriteString("CONFIG_" + name + "=" + c[name] + "\n")
	}
	return b.String() + "# CONFIG_IP_PNP is not set\n"
}

// system is the root directory of a system with a kernel: its files by path.
func system(t *testing.T, config map[string]string) map[string][]byte {
	t.Helper()
	lib := "lib/modules/" + release + "/"
	magic := "vermagic=" + release + " SMP mod_unload"
	return map[string][]byte{
		"boot/vmlinuz-" + release:                    kerneltest.GzipImage(kerneltest.Vmlinux{Release: release, PVH: true}),
		"boot/config-" + release:                     []byte(configText(config)),
		lib + "modules.builtin":                      []byte("kernel/drivers/virtio/virtio_pci_modern_dev.ko\n"),
		lib + "modules.order":                        []byte("kernel/drivers/virtio/virtio.ko\n"),
		lib + "kernel/drivers/virtio/virtio.ko":      kerneltest.Module("depends=", magic),
		lib + "kernel/drivers/virtio/virtio_mmio.ko": kerneltest.Module("depends=virtio", magic),
		lib + "kernel/drivers/virtio/virtio_pci.ko":  kerneltest.Module("depends=virtio,virtio_pci_modern_dev", magic),
		lib + "kernel/drivers/block/virtio_blk.ko":   kerneltest.Module("depends=virtio", magic),
		lib + "kernel/drivers/net/virtio_net.ko":     kerneltest.Module("depends=virtio", magic),
		lib + "kernel/drivers/char/virtio-rng.ko":    kerneltest.Module("depends=virtio", magic),
		lib + "kernel/fs/ext4/ext4.ko":               kerneltest.Module("depends=", "softdep=pre: crc32c", magic),
		lib + "kernel/crypto/crc32c_generic.ko":      kerneltest.Module("depends=", magic),
		lib + "kernel/net/other.ko":                  kerneltest.Module("depends=", "alias=other-*", magic),
	}
}

func lay(t *testing.T, files map[string][]byte) string {
	t.Helper()
	root := t.TempDir()
	for name, b := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// require skips the test where a program is not installed.
func require(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := host.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
}

// deb makes a package of the files.
func deb(t *testing.T, files map[string][]byte) string {
	t.Helper()
	require(t, "dpkg-deb", "depmod", "mke2fs")
	files = maps.Clone(files)
	files["DEBIAN/control"] = []byte("Package: linux-image-" + release + "\nVersion: 1\nArchitecture: amd64\nMaintainer: a <a@b.c>\nDescription: test\n")
	root := lay(t, files)
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "linux-image-"+release+"_1_amd64.deb")
	if err := host.Run(t.Context(), host.Command{Argv: []string{"dpkg-deb", "--root-owner-group", "-Znone", "-b", root, path}}); err != nil {
		t.Fatal(err)
	}
	return path
}

// left lists what is below the manager's directory.
func left(t *testing.T, m *Manager) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func wantError(t *testing.T, err error, kind errkind.Kind, words ...string) {
	t.Helper()
	if err == nil || !errkind.Is(err, kind) {
		t.Errorf("error %v of kind %q, want kind %s", err, errkind.Of(err), kind)
		return
	}
	for _, w := range words {
		if text := err.Error() + " " + errkind.Hint(err); !strings.Contains(text, w) {
			t.Errorf("%q does not say %q", text, w)
		}
	}
}

func TestSignaturesOfBootModules(t *testing.T) {
	const signature = "5byte\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x05~Module signature appended~\n"
	lax := goodConfig()
	delete(lax, "MODULE_SIG_FORCE")
	strict := goodConfig() // has it
	for _, c := range []struct {
		name   string
		config map[string]string
		kept   bool
	}{
		{"are dropped", lax, false},
		{"are kept for a kernel that insists on them", strict, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := system(t, c.config)
			name := "lib/modules/" + release + "/kernel/drivers/virtio/virtio.ko"
			plain := files[name]
			files[name] = append(bytes.Clone(plain), signature...)
			m, _ := newManager(t)
			k, err := m.Import(t.Context(), api.KernelImport{Deb: deb(t, files)}, opstate.Discard)
			if err != nil {
				t.Fatal(err)
			}
			want := plain
			if c.kept {
				want = files[name]
			}
			got, err := os.ReadFile(filepath.Join(k.Base, "virtio.ko"))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("the boot module has %d bytes, want %d; %v", len(got), len(want), err)
			}
		})
	}
}

func TestImportOfAPackage(t *testing.T) {
	m, s := newManager(t)
	k, err := m.Import(t.Context(), api.KernelImport{Deb: deb(t, system(t, goodConfig()))}, opstate.Discard)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(m.cfg.Dir, string(k.ID))
	t.Run("gives the record that is kept", func(t *testing.T) {
		want := banger.Kernel{
			ID: k.ID, Name: "debian-test", Release: release, Arch: "x86_64", Source: "linux-image-" + release + "_1_amd64.deb", Format: "elf",
			Image: filepath.Join(dir, "vmlinux"), Base: filepath.Join(dir, "boot"), Modules: filepath.Join(dir, "modules.ext4"), ModulesType: "ext4",
			BootModules: []string{"virtio.ko", "virtio_mmio.ko", "virtio_blk.ko", "crc32c_generic.ko", "ext4.ko", "virtio_net.ko", "virtio-rng.ko"},
			PCIModules:  []string{"virtio_pci.ko"}, Created: k.Created, Facts: k.Facts, Files: k.Files,
		}
		if len(k.Files) != 2+len(k.BootModules)+len(k.PCIModules) {
			t.Errorf("recorded are %v", k.Files)
		}
		if bad := append(preflight.Kernel(k), preflight.KernelDigests(t.Context(), k, math.MaxInt64)...); len(bad) > 0 {
			t.Errorf("a kernel that was just imported: %v", bad)
		}
		if diff := cmp.Diff(want, k); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]banger.Kernel{k}, s.all); diff != "" {
			t.Error(diff)
		}
		if k.Facts["EXT4_FS"] != "m" || k.Facts["ACPI"] != "y" || k.Facts["IP_PNP"] != "n" || k.Facts["LOCALVERSION"] != "" {
			t.Errorf("facts %v", k.Facts)
		}
	})
	t.Run("publishes nothing but read-only files", func(t *testing.T) {
		if diff := cmp.Diff([]string{string(k.ID)}, left(t, m)); diff != "" {
			t.Error(diff)
		}
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() && info.Mode() != 0o444 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		b, err := os.ReadFile(k.Image)
		if err != nil || !bytes.Equal(b, kerneltest.Vmlinux{Release: release, PVH: true}.Bytes()) {
			t.Errorf("the kernel is another: %v", err)
		}
	})
	t.Run("makes a file system of root's, with what modprobe needs", func(t *testing.T) {
		require(t, "debugfs", "e2fsck")
		ask := func(what string) string {
			out, err := host.Output(t.Context(), host.Command{Argv: []string{"debugfs", "-R", what, k.Modules}})
			if err != nil {
				t.Fatal(err)
			}
			return string(out)
		}
		if err := host.Run(t.Context(), host.Command{Argv: []string{"e2fsck", "-fn", k.Modules}}); err != nil {
			t.Error(err)
		}
		if dep := ask("cat /modules.dep"); !strings.Contains(dep, "kernel/drivers/block/virtio_blk.ko:") {
			t.Errorf("modules.dep: %s", dep)
		}
		if st := ask("stat /kernel/net/other.ko"); !strings.Contains(st, "Mode:  0644") || !strings.Contains(st, "User:     0   Group:     0") {
			t.Errorf("stat: %s", st)
		}
		if ls := ask("ls /"); !strings.Contains(ls, "modules.alias.bin") {
			t.Errorf("ls: %s", ls)
		}
	})
	t.Run("a name that is taken is refused at once", func(t *testing.T) {
		_, err := m.Import(t.Context(), api.KernelImport{Deb: "/no/such/linux-image-test-amd64.deb"}, opstate.Discard)
		wantError(t, err, api.KindExists, "debian-test", "--name")
	})
	t.Run("delete is refused while it is used, and names who uses it", func(t *testing.T) {
		err := m.Delete(t.Context(), "debian-test", func(context.Context, banger.Kernel) ([]string, error) { return []string{"web", "db"}, nil })
		wantError(t, err, api.KindPrecondition, "web, db")
		if len(s.all) != 1 || len(left(t, m)) != 1 {
			t.Error("it was deleted")
		}
	})
	t.Run("delete removes record, files and what is cached", func(t *testing.T) {
		unused := func(context.Context, banger.Kernel) ([]string, error) { return nil, nil }
		if err := m.Delete(t.Context(), string(k.ID), unused); err != nil {
			t.Fatal(err)
		}
		if len(s.all) != 0 || len(left(t, m)) != 0 {
			t.Errorf("left %v %v", s.all, left(t, m))
		}
		if got := m.cfg.Bases.(*cache).forgotten; !slices.Equal(got, []banger.KernelID{k.ID}) {
			t.Errorf("forgotten: %v", got)
		}
		wantError(t, m.Delete(t.Context(), "debian-test", unused), api.KindNotFound)
	})
}

func TestImportOfFiles(t *testing.T) {
	bare := goodConfig() // everything built in
	for name := range bare {
		bare[name] = "y"
	}
	elf := kerneltest.Vmlinux{Release: "6.9", PVH: true, Config: configText(bare)}
	importFile := func(t *testing.T, p api.KernelImport, content []byte) (banger.Kernel, *Manager, error) {
		t.Helper()
		p.Path = filepath.Join(lay(t, map[string][]byte{"My_Kernel": content}), "My_Kernel")
		m, _ := newManager(t)
		k, err := m.Import(t.Context(), p, opstate.Discard)
		if err != nil && len(left(t, m)) > 0 {
			t.Errorf("left %v", left(t, m))
		}
		return k, m, err
	}
	t.Run("an ELF kernel that needs no modules", func(t *testing.T) {
		k, _, err := importFile(t, api.KernelImport{}, elf.Bytes())
		if err != nil || k.Name != "my" || k.Format != "elf" || k.Modules != "" || k.Base != "" || k.Facts["VIRTIO_BLK"] != "y" {
			t.Errorf("%+v, %v", k, err)
		}
	})
	t.Run("a bzImage without PVH entry stays one", func(t *testing.T) {
		v := elf
		v.PVH = false
		k, m, err := importFile(t, api.KernelImport{Name: "old"}, kerneltest.GzipImage(v))
		if err != nil || k.Format != "bzimage" || k.Release != "6.9" {
			t.Fatalf("%+v, %v", k, err)
		}
		b, err := os.ReadFile(k.Image)
		if err != nil || !bytes.Equal(b, kerneltest.GzipImage(v)) {
			t.Errorf("another image: %v", err)
		}
		none := func(context.Context, banger.Kernel) ([]string, error) { return nil, nil }
		if err := m.Delete(t.Context(), "old", none); err != nil || len(left(t, m)) > 0 {
			t.Errorf("delete: %v, left %v", err, left(t, m))
		}
	})
	t.Run("an ELF kernel without PVH entry is refused", func(t *testing.T) {
		v := elf
		v.PVH = false
		_, _, err := importFile(t, api.KernelImport{}, v.Bytes())
		wantError(t, err, api.KindInvalid, "PVH", "bzImage")
	})
	t.Run("a file that is no kernel is refused", func(t *testing.T) {
		_, _, err := importFile(t, api.KernelImport{}, []byte("hello"))
		wantError(t, err, api.KindInvalid)
	})
	t.Run("modules and configuration are taken from where they are, which stays as it is", func(t *testing.T) {
		require(t, "depmod", "mke2fs")
		root := lay(t, system(t, goodConfig()))
		lib := filepath.Join(root, "lib/modules", release)
		if err := os.Symlink("/nowhere", filepath.Join(lib, "build")); err != nil {
			t.Fatal(err)
		}
		before := tree(t, root)
		p := api.KernelImport{Modules: lib, Config: filepath.Join(root, "boot/config-"+release)}
		k, _, err := importFile(t, p, kerneltest.Vmlinux{Release: release, PVH: true}.Bytes())
		if err != nil || len(k.BootModules) != 7 || k.Facts["EXT4_FS"] != "m" {
			t.Errorf("%+v, %v", k, err)
		}
		if diff := cmp.Diff(before, tree(t, root)); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("modules of another kernel are refused", func(t *testing.T) {
		lib := filepath.Join(lay(t, system(t, goodConfig())), "lib/modules", release)
		_, _, err := importFile(t, api.KernelImport{Modules: lib}, elf.Bytes())
		wantError(t, err, api.KindInvalid, release, "6.9")
	})
}

func tree(t *testing.T, root string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestAKernelThatCannotServe(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  map[string]string
		lacks   []string
		modules bool
	}{
		{"everything it lacks is said at once", map[string]string{"VIRTIO_BLK": "n", "SERIAL_8250_CONSOLE": "m", "DEVTMPFS": "n"},
			[]string{"CONFIG_DEVTMPFS, CONFIG_SERIAL_8250_CONSOLE, CONFIG_VIRTIO_BLK"}, true},
		{"a module is of no use without the modules", nil, []string{"CONFIG_EXT4_FS", "CONFIG_VIRTIO_MMIO", "CONFIG_VIRTIO_CONSOLE", "--modules"}, false},
		{"no control channel", map[string]string{"VIRTIO_CONSOLE": "n", "VIRTIO_VSOCKETS": "n"}, []string{"CONFIG_VIRTIO_CONSOLE"}, true},
		{"no way to find devices", map[string]string{"ACPI": "n", "VIRTIO_MMIO_CMDLINE_DEVICES": "n"}, []string{"CONFIG_ACPI"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := goodConfig()
			if c.modules {
				config["VIRTIO_VSOCKETS"] = "m"
			} else {
				config["VIRTIO_VSOCKETS"] = "n"
			}
			maps.Copy(config, c.change)
			wantError(t, refuse(facts([]byte(configText(config))), c.modules), api.KindInvalid, c.lacks...)
		})
	}
	t.Run("one that can is not refused", func(t *testing.T) {
		if err := refuse(facts([]byte(configText(goodConfig()))), true); err != nil {
			t.Error(err)
		}
	})
	t.Run("modules that are promised and missing are named", func(t *testing.T) {
		m, _ := newManager(t)
		files := system(t, goodConfig())
		maps.DeleteFunc(files, func(name string, _ []byte) bool { return strings.HasSuffix(name, "virtio_blk.ko") })
		_, err := m.Import(t.Context(), api.KernelImport{Deb: deb(t, files)}, opstate.Discard)
		wantError(t, err, api.KindInvalid, "virtio_blk")
		if l := left(t, m); len(l) > 0 {
			t.Errorf("left %v", l)
		}
	})
}

func TestFaults(t *testing.T) {
	pkg := deb(t, system(t, goodConfig()))
	p := api.KernelImport{Name: "k", Deb: pkg}
	t.Run("a store that fails leaves nothing, and the next import works", func(t *testing.T) {
		m, s := newManager(t)
		s.fail = errors.New("locked")
		if _, err := m.Import(t.Context(), p, opstate.Discard); !errors.Is(err, s.fail) {
			t.Errorf("error %v", err)
		}
		if l := left(t, m); len(l) > 0 {
			t.Errorf("left %v", l)
		}
		s.fail = nil
		if _, err := m.Import(t.Context(), p, opstate.Discard); err != nil {
			t.Error(err)
		}
	})
	t.Run("a full disk is said so and leaves nothing", func(t *testing.T) {
		full := disktest.FullDir(t)
		if full == "" {
			t.Skip("no file system to fill: mounting one takes root")
		}
		m, _ := newManager(t)
		m.cfg.Dir = full
		k := kerneltest.Vmlinux{Release: "6", PVH: true}.Bytes()
		_, err := m.Import(t.Context(), api.KernelImport{Path: filepath.Join(lay(t, map[string][]byte{"k": k}), "k")}, opstate.Discard)
		wantError(t, err, api.KindUnavailable)
		if l := left(t, m); len(l) > 0 {
			t.Errorf("left %v", l)
		}
	})
	t.Run("a cancel at each stage leaves nothing", func(t *testing.T) {
		for _, stage := range []string{"unpack kernel package", "extract kernel", "prepare kernel modules", "pack kernel modules"} {
			m, s := newManager(t)
			ctx, cancel := context.WithCancel(t.Context())
			_, err := m.Import(ctx, p, stager(func(name string) {
				if name == stage {
					cancel()
				}
			}))
			wantError(t, err, api.KindCanceled)
			if l := left(t, m); len(l) > 0 || len(s.all) > 0 {
				t.Errorf("canceled at %q: left %v", stage, l)
			}
		}
	})
	t.Run("of two imports of one name one wins", func(t *testing.T) {
		m, _ := newManager(t)
		errs := make(chan error)
		for range 2 {
			go func() { _, err := m.Import(t.Context(), p, opstate.Discard); errs <- err }()
		}
		a, b := <-errs, <-errs
		if a == nil {
			a, b = b, a
		}
		wantError(t, a, api.KindExists)
		if b != nil || len(left(t, m)) != 1 {
			t.Errorf("the other: %v, left %v", b, left(t, m))
		}
	})
	t.Run("waiting for a name ends with the context", func(t *testing.T) {
		m, _ := newManager(t)
		_, unlock, err := m.names.Lock(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = m.Import(ctx, p, opstate.Discard)
		wantError(t, err, api.KindCanceled)
		unlock()
	})
}

// stager is told the stages.
type stager func(name string)

func (s stager) Stage(name string)           { s(name) }
func (stager) Progress(int64, int64, string) {}

func (stager) ID() string { return "" }

func TestSweep(t *testing.T) {
	m, s := newManager(t)
	k := banger.Kernel{ID: "0123456789ab", Name: "kept"}
	s.all = append(s.all, k)
	for _, path := range []string{
		"0123456789ab/vmlinux", "0123456789ab/boot/a.ko", "aaaaaaaaaaaa/vmlinux", "aaaaaaaaaaaa/modules.ext4", "aaaaaaaaaaaa/boot/a.ko",
		".staging-bbbbbbbbbbbb/package/lib/x", ".staging-mine/x", "notes/vmlinux", "cccccccccccc",
	} {
		path = filepath.Join(m.cfg.Dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	_, unlock, err := m.names.Lock(t.Context(), "busy")
	if err != nil {
		t.Fatal(err)
	}
	if left, err := m.Leftovers(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("while a kernel is imported: %+v, %v", left, err)
	}
	unlock()
	if err := m.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{".staging-mine", "0123456789ab", "cccccccccccc", "notes"}, left(t, m)); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(filepath.Join(m.cfg.Dir, "0123456789ab/boot/a.ko")); err != nil {
		t.Error(err)
	}
	if got := m.cfg.Bases.(*cache).known; !slices.Equal(got, []banger.KernelID{k.ID}) {
		t.Errorf("what is cached was kept of %v", got)
	}
}

func TestACacheThatCannotBeCleanedIsToldOf(t *testing.T) {
	m, s := newManager(t)
	m.cfg.Bases.(*cache).err = os.ErrPermission
	s.all = append(s.all, banger.Kernel{ID: "0123456789ab", Name: "old"})
	none := func(context.Context, banger.Kernel) ([]string, error) { return nil, nil }
	wantError(t, m.Sweep(t.Context()), api.KindPermission)
	wantError(t, m.Delete(t.Context(), "old", none), api.KindPermission, `delete kernel "old"`)
	if len(s.all) != 0 {
		t.Error("the record is still there")
	}
}
