package imagemgr

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/preflight"
)

const status = `Package: git
Status: install ok installed
Architecture: amd64
Version: 1:2.39

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2
Description: a
 continued: line
`

// distribution is a synthetic root filesystem in the order and with the names that mmdebstrap gives.
func distribution(w io.Writer) error {
	t := tar.NewWriter(w)
	for _, f := range []struct {
		hdr  tar.Header
		data string
	}{
		{tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "./etc/hostname", Mode: 0o644}, "buildhost\n"},
		{tar.Header{Typeflag: tar.TypeReg, Name: "./etc/resolv.conf", Mode: 0o644}, "nameserver 192.0.2.1\n"},
		{tar.Header{Typeflag: tar.TypeReg, Name: "./etc/ssh/ssh_host_rsa_key", Mode: 0o600}, "secret"},
		{tar.Header{Typeflag: tar.TypeReg, Name: "./etc/shadow-", Mode: 0o600}, "old"},
		{tar.Header{Typeflag: tar.TypeReg, Name: "./etc/shadow", Mode: 0o640, Gid: 42}, "root:*:1::::::\n"},
		{tar.Header{Typeflag: tar.TypeDir, Name: "./root/", Mode: 0o700}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "./root/.bashrc", Mode: 0o644}, "# bash\n"},
		{tar.Header{Typeflag: tar.TypeLink, Name: "./root/again", Linkname: "./root/.bashrc"}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "./rootless", Mode: 0o644}, "not below /root"},
		{tar.Header{Typeflag: tar.TypeReg, Name: "./var/lib/dpkg/status", Mode: 0o644}, status},
		{tar.Header{Typeflag: tar.TypeReg, Name: "./var/lib/apt/lists/mirror_Packages", Mode: 0o644}, "x"},
		{tar.Header{Typeflag: tar.TypeReg, Name: "./var/log/bootstrap.log", Mode: 0o644}, "x"},
	} {
		f.hdr.Size = int64(len(f.data))
		if err := t.WriteHeader(&f.hdr); err != nil {
			return err
		}
		if _, err := io.WriteString(t, f.data); err != nil {
			return err
		}
	}
	return t.Close()
}

// newManager returns a Manager whose builds take the distribution above, or what make writes.
func newManager(t *testing.T, make func(ctx context.Context, w io.Writer) error) (*Manager, *fakeStore) {
	t.Helper()
	for _, program := range []string{"mke2fs", "e2fsck", "debugfs"} {
		if _, err := host.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	store := &fakeStore{used: map[banger.ImageID]bool{}}
	m := New(Config{Dir: t.TempDir(), CacheDir: t.TempDir(), Store: store, Kernels: fakeKernels{}, Log: slog.New(slog.DiscardHandler)})
	m.mode = func() (bootstrapMode, error) { return modeRoot, nil }
	m.bootstrap = func(ctx context.Context, _ bootstrap, w *os.File) error {
		if make == nil {
			return distribution(w)
		}
		return make(ctx, w)
	}
	return m, store
}

// wantDirs checks what is in the directory of images.
func wantDirs(t *testing.T, m *Manager, want ...banger.ImageID) {
	t.Helper()
	entries, err := os.ReadDir(m.cfg.Dir)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.Name()] = true
		if _, err := os.Stat(filepath.Join(m.cfg.Dir, e.Name(), uncommittedFile)); err == nil {
			t.Errorf("%s is marked uncommitted", e.Name())
		}
	}
	for _, id := range want {
		if !names[string(id)] {
			t.Errorf("the directory of %s is missing", id)
		}
	}
	if len(names) != len(want) {
		t.Errorf("directories %v, want %v", names, want)
	}
}

func wantKind(t *testing.T, err error, kind api.ErrorKind, words ...string) {
	t.Helper()
	if !errkind.Is(err, kind) {
		t.Fatalf("got %v of kind %q, want %q", err, errkind.Of(err), kind)
	}
	for _, w := range words {
		if text := err.Error() + " " + errkind.Hint(err); !strings.Contains(text, w) {
			t.Errorf("%q is not in %q", w, text)
		}
	}
}

func TestBuild(t *testing.T) {
	m, _ := newManager(t, nil)
	img, err := m.BuildDebian(t.Context(), api.ImageBuild{Name: "web", Kernel: "cloud", Init: "/sbin/init", RootSize: 1 << 30}, opstate.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("the record says what was made", func(t *testing.T) {
		if img.Name != "web" || img.Kernel != "cloud" || img.Init != "/sbin/init" || img.RootSize != 1<<30 || img.WorkSize != 8<<30 || !img.Managed ||
			img.Packages != 2 || img.Source != "debian:bookworm" || !strings.HasPrefix(img.Digest, "sha256:") || len(img.Digest) != 71 {
			t.Errorf("got %+v", img)
		}
		wantDirs(t, m, img.ID)
	})
	t.Run("preflight finds its files as they were published", func(t *testing.T) {
		if len(img.Files) != 2 || img.Files[0].Path != img.Rootfs || img.Files[0].Size != img.RootSize || img.Files[1].Size != img.WorkSize {
			t.Errorf("recorded are %+v", img.Files)
		}
		if bad := append(preflight.Image(img), preflight.ImageDigests(t.Context(), img, math.MaxInt64)...); len(bad) > 0 {
			t.Errorf("%+v", bad)
		}
	})
	t.Run("image.json has the packages, sorted", func(t *testing.T) {
		b, err := os.ReadFile(filepath.Join(m.dir(img.ID), manifestFile))
		if err != nil {
			t.Fatal(err)
		}
		if s := string(b); !strings.Contains(s, `"1:2.39"`) || strings.Index(s, `"bash"`) > strings.Index(s, `"git"`) || strings.Contains(s, `"gone"`) {
			t.Error(s)
		}
	})
	t.Run("what is below /root is in the work-seed alone", func(t *testing.T) {
		if got := debugfs(t, img.WorkSeed, "cat /again"); got != "# bash\n" {
			t.Errorf("got %q", got)
		}
		if got := debugfs(t, img.WorkSeed, "ls -p /"); !strings.Contains(got, "/040700/0/0/.//") {
			t.Errorf("its root is not /root: %s", got)
		}
		if got := debugfs(t, img.Rootfs, "ls -p /root"); strings.Count(got, "\n") > 3 {
			t.Errorf("/root of the rootfs: %s", got)
		}
		if got := debugfs(t, img.Rootfs, "cat /rootless"); got != "not below /root" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("nothing of the build or the host is in it", func(t *testing.T) {
		for _, gone := range []string{"/etc/hostname", "/etc/ssh/ssh_host_rsa_key", "/etc/shadow-", "/var/lib/apt/lists/mirror_Packages", "/var/log/bootstrap.log"} {
			if got := debugfs(t, img.Rootfs, "cat "+gone); got != "" {
				t.Errorf("%s: %q", gone, got)
			}
		}
		for _, empty := range []string{"/etc/resolv.conf", "/etc/machine-id"} {
			if got := debugfs(t, img.Rootfs, "stat "+empty); !strings.Contains(got, "Size: 0") {
				t.Errorf("%s: %s", empty, got)
			}
		}
	})
	t.Run("the same stream has the same digest", func(t *testing.T) {
		again, err := m.BuildDebian(t.Context(), api.ImageBuild{Name: "again"}, opstate.Discard)
		if err != nil || again.Digest != img.Digest {
			t.Errorf("%v and %v, %v", img.Digest, again.Digest, err)
		}
	})
}

func TestBadRequests(t *testing.T) {
	m, _ := newManager(t, func(context.Context, io.Writer) error { t.Error("it was begun"); return nil })
	for _, p := range []api.ImageBuild{
		{}, {Name: "Bad"}, {Name: "x", Suite: "-x"}, {Name: "x", Suite: "a b"}, {Name: "x", Variant: "custom"}, {Name: "x", Packages: []string{"--x"}},
		{Name: "x", Packages: []string{"a,b"}}, {Name: "x", Mirror: "/etc/passwd"}, {Name: "x", Mirror: "--x=a://"}, {Name: "x", Init: "systemd"},
		{Name: "x", RootSize: 1 << 20}, {Name: "x", RootSize: 1<<30 + 1},
	} {
		_, err := m.BuildDebian(t.Context(), p, opstate.Discard)
		wantKind(t, err, api.KindInvalid)
	}
	_, err := m.BuildDebian(t.Context(), api.ImageBuild{Name: "x", Kernel: "none"}, opstate.Discard)
	wantKind(t, err, api.KindNotFound)
	wantDirs(t, m)
}

func TestNames(t *testing.T) {
	build := func(t *testing.T, m *Manager, replace bool) banger.Image {
		t.Helper()
		img, err := m.BuildDebian(t.Context(), api.ImageBuild{Name: "web", Replace: replace}, opstate.Discard)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	t.Run("a name that is taken is refused", func(t *testing.T) {
		m, _ := newManager(t, nil)
		img := build(t, m, false)
		_, err := m.BuildDebian(t.Context(), api.ImageBuild{Name: "web"}, opstate.Discard)
		wantKind(t, err, api.KindExists, `"web"`, "--replace")
		wantDirs(t, m, img.ID)
	})
	t.Run("replace deletes an image that nobody uses", func(t *testing.T) {
		m, _ := newManager(t, nil)
		build(t, m, false)
		img := build(t, m, true)
		if got, err := m.Get(t.Context(), "web"); err != nil || got.ID != img.ID {
			t.Errorf("web is %v, %v", got.ID, err)
		}
		wantDirs(t, m, img.ID)
	})
	t.Run("replace keeps an image that VMs use under another name", func(t *testing.T) {
		m, store := newManager(t, nil)
		old := build(t, m, false)
		store.used[old.ID] = true
		img := build(t, m, true)
		if got, err := m.Get(t.Context(), "web-"+string(old.ID)[:6]); err != nil || got.ID != old.ID {
			t.Errorf("the old one is %v, %v", got.ID, err)
		}
		wantDirs(t, m, old.ID, img.ID)
	})
	t.Run("a store that refuses leaves everything as it was", func(t *testing.T) {
		m, store := newManager(t, nil)
		old := build(t, m, false)
		store.putErr = errors.New("no")
		if _, err := m.BuildDebian(t.Context(), api.ImageBuild{Name: "web", Replace: true}, opstate.Discard); !errors.Is(err, store.putErr) {
			t.Fatalf("got %v", err)
		}
		if got, err := m.Get(t.Context(), "web"); err != nil || got.ID != old.ID {
			t.Errorf("web is %v, %v", got.ID, err)
		}
		wantDirs(t, m, old.ID)
	})
}

func TestDelete(t *testing.T) {
	m, store := newManager(t, nil)
	img, err := m.EnsureDefault(t.Context(), opstate.Discard)
	if err != nil {
		t.Fatal(err)
	}
	users := func(names ...string) func(context.Context, banger.ImageID) ([]string, error) {
		return func(context.Context, banger.ImageID) ([]string, error) { return names, nil }
	}
	t.Run("one that VMs use is refused, and they are named", func(t *testing.T) {
		wantKind(t, m.Delete(t.Context(), "debian", users("web", "db")), api.KindPrecondition, "web, db", "banger vm delete web db")
		wantDirs(t, m, img.ID)
	})
	t.Run("a VM made in between is respected", func(t *testing.T) {
		store.used[img.ID] = true
		wantKind(t, m.Delete(t.Context(), "debian", users()), api.KindPrecondition)
		wantDirs(t, m, img.ID)
		store.used[img.ID] = false
	})
	t.Run("it is gone, files and all", func(t *testing.T) {
		if err := m.Delete(t.Context(), string(img.ID), users()); err != nil {
			t.Fatal(err)
		}
		wantDirs(t, m)
		wantKind(t, m.Delete(t.Context(), "debian", users()), api.KindNotFound)
	})
	t.Run("files of an image that is only registered stay", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "mine.ext4")
		if err := errors.Join(os.WriteFile(path, nil, 0o600), store.PutImage(t.Context(), banger.Image{ID: "1", Name: "mine", Rootfs: path})); err != nil {
			t.Fatal(err)
		}
		if err := m.Delete(t.Context(), "mine", users()); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	})
}

func TestEnsureDefault(t *testing.T) {
	t.Run("callers at the same time wait for one build", func(t *testing.T) {
		var builds atomic.Int32
		m, _ := newManager(t, func(_ context.Context, w io.Writer) error { builds.Add(1); return distribution(w) })
		var wg sync.WaitGroup
		ids := make([]banger.ImageID, 8)
		for i := range ids {
			wg.Go(func() {
				img, err := m.EnsureDefault(t.Context(), opstate.Discard)
				if err != nil {
					t.Error(err)
				}
				ids[i] = img.ID
			})
		}
		wg.Wait()
		if builds.Load() != 1 {
			t.Errorf("%d builds", builds.Load())
		}
		for _, id := range ids {
			if id != ids[0] || id == "" {
				t.Errorf("ids %v", ids)
			}
		}
	})
	t.Run("one who waits can give up, and the next one builds after a failure", func(t *testing.T) {
		begun, fail := make(chan struct{}), make(chan struct{})
		var builds atomic.Int32
		m, _ := newManager(t, func(_ context.Context, w io.Writer) error {
			if builds.Add(1) > 1 {
				return distribution(w)
			}
			close(begun)
			<-fail
			return errors.New("first fails")
		})
		first := make(chan error)
		go func() { _, err := m.EnsureDefault(t.Context(), opstate.Discard); first <- err }()
		<-begun
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := m.EnsureDefault(ctx, opstate.Discard)
		wantKind(t, err, api.KindCanceled)
		close(fail)
		if err := <-first; err == nil || !strings.Contains(err.Error(), "first fails") {
			t.Errorf("got %v", err)
		}
		if _, err := m.EnsureDefault(t.Context(), opstate.Discard); err != nil {
			t.Error(err)
		}
	})
}

func TestBuildFaults(t *testing.T) {
	cut := errors.New("mirror is down")
	for _, c := range []struct {
		name string
		make func(ctx context.Context, w io.Writer) error
		kind api.ErrorKind
		want string
	}{
		{"mmdebstrap fails at once", func(context.Context, io.Writer) error { return errkind.Wrap(api.KindUnavailable, cut) }, api.KindUnavailable, "mirror is down"},
		{"mmdebstrap fails in the middle", func(_ context.Context, w io.Writer) error {
			w.Write(make([]byte, 300))
			return errkind.Wrap(api.KindUnavailable, cut)
		}, api.KindUnavailable, "mirror is down"},
		{"mmdebstrap writes rubbish and goes on", func(ctx context.Context, w io.Writer) error {
			for {
				if _, err := io.WriteString(w, strings.Repeat("rubbish ", 512)); err != nil {
					return err
				}
			}
		}, api.KindInternal, "read tar"},
		{"the stream has no packages", func(_ context.Context, w io.Writer) error { return tar.NewWriter(w).Close() }, api.KindInternal, "no packages"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, _ := newManager(t, c.make)
			_, err := m.BuildDebian(t.Context(), api.ImageBuild{Name: "web"}, opstate.Discard)
			wantKind(t, err, c.kind, c.want, `"web"`)
			wantDirs(t, m)
			m.bootstrap = func(_ context.Context, _ bootstrap, w *os.File) error { return distribution(w) }
			img, err := m.BuildDebian(t.Context(), api.ImageBuild{Name: "web"}, opstate.Discard)
			if err != nil {
				t.Fatal("the same command again: ", err)
			}
			wantDirs(t, m, img.ID)
		})
	}
	t.Run("the caller gives up while mmdebstrap is silent", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m, _ := newManager(t, func(ctx context.Context, _ io.Writer) error { cancel(); <-ctx.Done(); return context.Cause(ctx) })
		_, err := m.BuildDebian(ctx, api.ImageBuild{Name: "web"}, opstate.Discard)
		wantKind(t, err, api.KindCanceled)
		wantDirs(t, m)
	})
}

func TestSweep(t *testing.T) {
	m, store := newManager(t, nil)
	put := func(path string) {
		t.Helper()
		path = filepath.Join(m.cfg.Dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o400)); err != nil {
			t.Fatal(err)
		}
	}
	img, err := m.EnsureDefault(t.Context(), opstate.Discard)
	if err != nil {
		t.Fatal(err)
	}
	put(string(img.ID) + "/" + uncommittedFile) // the crash came after the row
	put(".staging-aaaaaaaaaaaa/rootfs.ext4")
	put(".staging-aaaaaaaaaaaa/work/mmdebstrap.x/etc/passwd")
	put("bbbbbbbbbbbb/rootfs.ext4") // the crash came before the row
	put("bbbbbbbbbbbb/" + uncommittedFile)
	put("cccccccccccc/rootfs.ext4")     // no proof: a store that was restored may miss it
	put("dddddddddddd/" + manifestFile) // an image, perhaps, of a store that was lost
	put("notes/mine.txt")
	t.Run("doctor would find what is swept, and what only looks like an image, but nothing while an image is built", func(t *testing.T) {
		found := func() (mendable, other int) {
			t.Helper()
			left, err := m.Leftovers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range left {
				if p.Mend != nil {
					mendable++
				} else {
					other++
				}
			}
			return mendable, other
		}
		if mendable, other := found(); mendable != 2 || other != 1 {
			t.Errorf("found %d, and %d for a person", mendable, other)
		}
		_, unlock, err := m.locks.Lock(t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		if mendable, other := found(); mendable+other > 0 {
			t.Errorf("found %d, and %d for a person, while an image is built", mendable, other)
		}
		unlock()
	})
	for range 2 {
		if err := m.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantDirs(t, m, img.ID, "cccccccccccc", "dddddddddddd", "notes")
	}
	if _, err := os.Stat(filepath.Join(m.cfg.Dir, "notes", "mine.txt")); err != nil {
		t.Error(err)
	}
	if len(store.images) != 1 {
		t.Errorf("%d images", len(store.images))
	}
	m.cfg.Dir = filepath.Join(m.cfg.Dir, "missing")
	if err := m.Sweep(t.Context()); err != nil {
		t.Errorf("no directory yet: %v", err)
	}
}
