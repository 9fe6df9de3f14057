package initramfs_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/initramfs"
	"github.com/cavaliergopher/cpio"
	"github.com/google/go-cmp/cmp"
)

// house is a builder with a kernel and an agent.
type house struct {
	*initramfs.Builder
	dir, cache, agent string
	kernel            banger.Kernel
}

func newHouse(t testing.TB, agentSize int) *house {
	t.Helper()
	dir := t.TempDir()
	h := &house{dir: dir, cache: filepath.Join(dir, "cache"), agent: filepath.Join(dir, "banger-agent")}
	h.kernel = banger.Kernel{
		ID: "0123456789ab", Name: "k", Base: filepath.Join(dir, "boot"), BootModules: []string{"virtio_ring.ko", "virtio-rng.ko"},
		PCIModules: []string{"virtio_pci.ko"}, LateModules: []string{"kernel/fs/overlay.ko"},
	}
	if err := os.Mkdir(h.kernel.Base, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range h.kernel.OnPCI().BootModules {
		h.write(t, filepath.Join(h.kernel.Base, name), "module "+name)
	}
	h.write(t, h.agent, strings.Repeat("A", agentSize))
	h.Builder = initramfs.New(h.cache, h.agent)
	return h
}

func (h *house) write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// member is an entry of an archive; Content is shortened.
type member struct {
	Mode    string
	Content string
}

// unpack reads joined archives as the kernel does: after a trailer it goes on at the next byte that is not zero.
func unpack(t *testing.T, path string) (archives []map[string]member) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for whole := len(b); len(b) > 0; {
		if at := whole - len(b); at%4 != 0 {
			t.Fatalf("an archive begins at %d, which is no multiple of 4", at)
		}
		r := cpio.NewReader(bytes.NewReader(b))
		files := map[string]member{}
		for {
			hdr, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			files[hdr.Name] = member{fmt.Sprintf("%o", hdr.Mode), string(content[:min(len(content), 40)])}
		}
		archives = append(archives, files)
		end := bytes.Index(b, []byte("TRAILER!!!"))
		b = b[end+len("TRAILER!!!"):]
		b = bytes.TrimLeft(b, "\x00")
	}
	return archives
}

func TestBuild(t *testing.T) {
	h := newHouse(t, 10)
	path := filepath.Join(h.dir, "initrd")
	cfg := guestapi.BootConfig{VMID: "abc", HostKey: "secret", Modules: []string{"/replaced"}}
	if err := h.Build(t.Context(), path, h.kernel, cfg); err != nil {
		t.Fatal(err)
	}
	archives := unpack(t, path)
	if len(archives) != 2 {
		t.Fatalf("%d archives", len(archives))
	}
	t.Run("the base has agent, directories, console and modules", func(t *testing.T) {
		want := map[string]member{
			"dev": {"40755", ""}, "proc": {"40755", ""}, "sys": {"40755", ""}, "newroot": {"40755", ""}, "modules": {"40755", ""},
			"dev/console":            {"20600", ""},
			"init":                   {"100755", "AAAAAAAAAA"},
			"modules/virtio_ring.ko": {"100644", "module virtio_ring.ko"},
			"modules/virtio-rng.ko":  {"100644", "module virtio-rng.ko"},
			"modules/virtio_pci.ko":  {"100644", "module virtio_pci.ko"},
		}
		if diff := cmp.Diff(want, archives[0]); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("the console is device 5:1", func(t *testing.T) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := bytes.Index(b, []byte("dev/console\x00"))
		if got := string(b[at-110+78 : at-110+94]); got != "0000000500000001" {
			t.Errorf("c_rdevmajor and c_rdevminor are %s", got)
		}
	})
	t.Run("the second has the configuration, private, with the modules in load order", func(t *testing.T) {
		if len(archives[1]) != 1 || archives[1]["vm.json"].Mode != "100600" {
			t.Fatalf("second archive: %v", archives[1])
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := bytes.Cut(b, []byte("vm.json\x00"))
		var got guestapi.BootConfig
		if err := json.NewDecoder(bytes.NewReader(bytes.TrimLeft(text, "\x00"))).Decode(&got); err != nil {
			t.Fatal(err)
		}
		want := guestapi.BootConfig{VMID: "abc", HostKey: "secret", LateModules: h.kernel.LateModules,
			Modules: []string{"/modules/virtio_ring.ko", "/modules/virtio-rng.ko"}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a VM on PCI has the same base and loads PCI's modules too, last", func(t *testing.T) {
		onPCI := filepath.Join(h.dir, "initrd-pci")
		if err := h.Build(t.Context(), onPCI, h.kernel.OnPCI(), cfg); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(onPCI)
		if err != nil {
			t.Fatal(err)
		}
		const order = `["/modules/virtio_ring.ko","/modules/virtio-rng.ko","/modules/virtio_pci.ko"]`
		if len(bases(t, h)) != 1 || !bytes.Contains(b, []byte(order)) {
			t.Errorf("bases %v, %s is not in vm.json", bases(t, h), order)
		}
	})
	t.Run("the file is private, and the caller's configuration is left alone", func(t *testing.T) {
		st, err := os.Stat(path)
		if err != nil || st.Mode() != 0o600 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
		if cfg.Modules[0] != "/replaced" {
			t.Errorf("modules became %v", cfg.Modules)
		}
	})
	t.Run("a second build replaces the file", func(t *testing.T) {
		if err := h.Build(t.Context(), path, h.kernel, guestapi.BootConfig{VMID: "second"}); err != nil {
			t.Fatal(err)
		}
		if got := unpack(t, path)[1]["vm.json"].Content; !strings.Contains(got, "second") {
			t.Errorf("vm.json is %s", got)
		}
	})
}

func bases(t *testing.T, h *house) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(h.cache, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestBaseIsCached(t *testing.T) {
	h := newHouse(t, 10)
	path := filepath.Join(h.dir, "initrd")
	build := func() {
		t.Helper()
		if err := h.Build(t.Context(), path, h.kernel, guestapi.BootConfig{}); err != nil {
			t.Fatal(err)
		}
	}
	build()
	first := bases(t, h)
	t.Run("and used again", func(t *testing.T) {
		if err := os.RemoveAll(h.kernel.Base); err != nil { // a second base could not be made
			t.Fatal(err)
		}
		build()
		if diff := cmp.Diff(first, bases(t, h)); diff != "" || len(first) != 1 {
			t.Error(diff)
		}
	})
	t.Run("until the agent changes, which also removes the old one", func(t *testing.T) {
		h.kernel.BootModules, h.kernel.PCIModules = nil, nil
		h.write(t, h.agent, "new agent")
		if err := os.Chtimes(h.agent, time.Time{}, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		build()
		now := bases(t, h)
		if len(now) != 1 || now[0] == first[0] {
			t.Errorf("bases %v after %v", now, first)
		}
		if got := unpack(t, path)[0]["init"].Content; got != "new agent" {
			t.Errorf("init is %q", got)
		}
	})
	t.Run("until its kernel is forgotten", func(t *testing.T) {
		if err := h.Forget("ffffffffffff"); err != nil || len(bases(t, h)) != 1 {
			t.Errorf("another kernel's: %v, %v", bases(t, h), err)
		}
		if err := h.Forget(h.kernel.ID); err != nil || len(bases(t, h)) != 0 {
			t.Errorf("bases %v, %v", bases(t, h), err)
		}
	})
}

func TestSweep(t *testing.T) {
	h := newHouse(t, 10)
	if err := h.Sweep(nil); err != nil {
		t.Errorf("before anything is cached: %v", err)
	}
	if err := h.Build(t.Context(), filepath.Join(h.dir, "initrd"), h.kernel, guestapi.BootConfig{}); err != nil {
		t.Fatal(err)
	}
	kept := bases(t, h)
	dir := filepath.Dir(kept[0])
	const deleted, cut, mine = "ffffffffffff-0123456789abcdef.cpio", ".base-123", "ffffffffffff-notes.cpio"
	for _, name := range []string{deleted, cut, mine} {
		h.write(t, filepath.Join(dir, name), "x")
	}
	if err := h.Sweep([]banger.KernelID{h.kernel.ID}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if diff := cmp.Diff([]string{filepath.Base(kept[0]), mine}, left); diff != "" {
		t.Errorf("left after the sweep (-want):\n%s", diff)
	}
}

func TestConcurrentBuilds(t *testing.T) {
	h := newHouse(t, 1<<20)
	errs := make(chan error)
	const n = 8
	for i := range n {
		go func() {
			errs <- h.Build(t.Context(), filepath.Join(h.dir, fmt.Sprint("initrd", i)), h.kernel, guestapi.BootConfig{VMID: fmt.Sprint(i)})
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for i := range n {
		a := unpack(t, filepath.Join(h.dir, fmt.Sprint("initrd", i)))
		if len(a) != 2 || !strings.Contains(a[1]["vm.json"].Content, fmt.Sprintf("%q", fmt.Sprint(i))) {
			t.Errorf("initrd%d: %v", i, a[1])
		}
	}
	if b := bases(t, h); len(b) != 1 {
		t.Errorf("bases %v", b)
	}
}

func TestErrors(t *testing.T) {
	h := newHouse(t, 10)
	path := filepath.Join(h.dir, "initrd")
	fails := func(t *testing.T, kind errkind.Kind) {
		t.Helper()
		err := h.Build(t.Context(), path, h.kernel, guestapi.BootConfig{})
		if err == nil || kind != "" && !errkind.Is(err, kind) {
			t.Errorf("error %v, want kind %s", err, kind)
		}
		left, _ := filepath.Glob(filepath.Join(h.dir, "initrd*"))
		hidden, _ := filepath.Glob(filepath.Join(h.cache, ".*"))
		if len(left)+len(hidden) > 0 {
			t.Errorf("left %v %v", left, hidden)
		}
	}
	t.Run("a missing agent says what to do", func(t *testing.T) {
		hidden := h.agent + ".away"
		if err := os.Rename(h.agent, hidden); err != nil {
			t.Fatal(err)
		}
		fails(t, api.KindUnavailable)
		if err := os.Rename(hidden, h.agent); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a missing module leaves no base", func(t *testing.T) {
		if err := os.Remove(filepath.Join(h.kernel.Base, "virtio-rng.ko")); err != nil {
			t.Fatal(err)
		}
		fails(t, "")
		if b := bases(t, h); len(b) > 0 {
			t.Errorf("bases %v", b)
		}
	})
}

// BenchmarkBuild builds with an agent and modules of the usual size, 10 MB.
func BenchmarkBuild(b *testing.B) {
	h := newHouse(b, 10<<20)
	for b.Loop() {
		if err := h.Build(b.Context(), filepath.Join(h.dir, "initrd"), h.kernel, guestapi.BootConfig{}); err != nil {
			b.Fatal(err)
		}
	}
}
