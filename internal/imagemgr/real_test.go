package imagemgr

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/disk/ext4"
	"github.com/banger-vm/banger/internal/host"
)

// TestRealBuild builds the default image from the host's package sources, as whoever runs the test. With
// BANGER_TEST_IMAGES set to a directory, the image and one with systemd are left there, for other tests to boot.
func TestRealBuild(t *testing.T) {
	if testing.Short() {
		t.Skip("short: downloads and installs a distribution")
	}
	for _, program := range []string{"mmdebstrap", "mke2fs", "e2fsck", "debugfs"} {
		if _, err := host.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
	if _, err := chooseMode(); err != nil {
		t.Skip(err)
	}
	m := New(Config{Dir: t.TempDir(), CacheDir: t.TempDir(), Store: &fakeStore{}, Kernels: fakeKernels{}, Log: slog.New(slog.DiscardHandler)})
	keep := os.Getenv("BANGER_TEST_IMAGES")
	before := temporaries(t)

	t.Run("the default image", func(t *testing.T) {
		rec := &recorder{t: t}
		img, err := m.EnsureDefault(t.Context(), rec)
		if err != nil {
			t.Fatal(err)
		}
		rec.Stage("")
		if rec.most["packages"] < 80 {
			t.Errorf("packages seen in progress: %v", rec.most)
		}
		inspect(t, m, img)
		for _, want := range []string{"/usr/bin/git", "/usr/sbin/ip", "/usr/bin/vim.tiny", "/bin/mount", "/usr/bin/ping"} {
			if debugfs(t, img.Rootfs, "stat "+want) == "" {
				t.Errorf("%s is missing", want)
			}
		}
		if got := debugfs(t, img.Rootfs, "ls -p /root"); strings.Contains(got, "bashrc") {
			t.Errorf("/root of the rootfs is not empty:\n%s", got)
		}
		if got := debugfs(t, img.WorkSeed, "ls -p /"); !strings.Contains(got, "/040700/0/0/.//") || !strings.Contains(got, "/.bashrc/") {
			t.Errorf("the work-seed:\n%s", got)
		}
		if got := debugfs(t, img.Rootfs, "cat /etc/resolv.conf"); got != "" {
			t.Errorf("/etc/resolv.conf of the host leaked: %q", got)
		}
		again, err := m.EnsureDefault(t.Context(), rec)
		if err != nil || again.ID != img.ID {
			t.Errorf("the second time: %v, %v", again.ID, err)
		}
		wantNothingOf(t, m, before)
		leave(t, keep, "debian", img)
	})

	t.Run("a caller who gives up in the middle", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		rec := &recorder{t: t, at: "unpack packages", then: cancel}
		_, err := m.BuildDebian(ctx, api.ImageBuild{Name: "canceled"}, rec)
		wantKind(t, err, api.KindCanceled)
		wantNothingOf(t, m, before)
	})

	t.Run("a daemon that is killed in the middle", func(t *testing.T) {
		dir := t.TempDir()
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		p, err := host.Detached{
			Argv: []string{os.Args[0]}, Env: append(os.Environ(), buildDirVariable+"="+dir), Dir: "/", Stdout: w,
		}.Start()
		w.Close()
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(r)
		for lines.Scan() && lines.Text() != "unpack packages" {
		}
		if err := errors.Join(p.Kill(), lines.Err()); err != nil {
			t.Fatal(err)
		}
		p.Wait()
		m := New(Config{Dir: dir, CacheDir: dir, Store: &fakeStore{}, Kernels: fakeKernels{}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		if stages, _ := filepath.Glob(filepath.Join(dir, stagingPrefix+"*")); len(stages) != 1 {
			t.Errorf("before the sweep: %v", stages)
		}
		if err := m.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantNothingOf(t, m, before)
		if mounted, err := mountedBelow(dir); mounted || err != nil {
			t.Errorf("something is mounted: %v", err)
		}
	})

	t.Run("a package that does not exist", func(t *testing.T) {
		_, err := m.BuildDebian(t.Context(), api.ImageBuild{Name: "missing", Packages: []string{"no-such-package"}}, &recorder{t: t})
		wantKind(t, err, api.KindUnavailable, "no-such-package", "build-missing.log")
		wantNothingOf(t, m, before)
	})

	t.Run("an image with systemd", func(t *testing.T) {
		if keep == "" {
			t.Skip("BANGER_TEST_IMAGES is not set")
		}
		img, err := m.BuildDebian(t.Context(), api.ImageBuild{
			Name: "systemd", Packages: []string{"systemd-sysv", "dbus"}, Init: "/sbin/init",
		}, &recorder{t: t})
		if err != nil {
			t.Fatal(err)
		}
		inspect(t, m, img)
		leave(t, keep, "systemd", img)
	})
}

// buildDirVariable makes the test binary build the default image in the directory that it names, and print the stages.
const buildDirVariable = "BANGER_TEST_BUILD_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(buildDirVariable)
	if dir == "" {
		os.Exit(m.Run())
	}
	b := New(Config{Dir: dir, CacheDir: dir, Store: &fakeStore{}, Kernels: fakeKernels{}, Log: slog.New(slog.DiscardHandler)})
	if _, err := b.EnsureDefault(context.Background(), printer{}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

type printer struct{}

func (printer) ID() string                    { return "" }
func (printer) Stage(name string)             { fmt.Println(name) }
func (printer) Progress(int64, int64, string) {}

// inspect checks what is true of every image.
func inspect(t *testing.T, m *Manager, img banger.Image) {
	t.Helper()
	for _, path := range []string{img.Rootfs, img.WorkSeed} {
		if err := ext4.Check(t.Context(), path); err != nil {
			t.Error(err)
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode() != 0o444 || st.Size() != 8<<30 {
			t.Errorf("%s has mode %v and size %d", path, st.Mode(), st.Size())
		}
		n, err := host.Allocated(path)
		t.Logf("%s: %d MiB allocated, %v", filepath.Base(path), n>>20, err)
		if n > 300<<20 {
			t.Errorf("%s takes %d MiB", path, n>>20)
		}
	}
	b, err := os.ReadFile(filepath.Join(m.dir(img.ID), manifestFile))
	var man manifest
	if err := errors.Join(err, json.Unmarshal(b, &man)); err != nil {
		t.Fatal(err)
	}
	if man.ID != img.ID || len(man.PackageList) != img.Packages || img.Packages < 80 {
		t.Errorf("image.json: id %v, %d packages of %d", man.ID, len(man.PackageList), img.Packages)
	}
}

// temporaries lists what builds make outside their own directory.
func temporaries(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{foreignWork + "*", "mmdebstrap.*"} {
		found, err := filepath.Glob(filepath.Join(os.TempDir(), pattern))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

func wantNothingOf(t *testing.T, m *Manager, before []string) {
	t.Helper()
	if stages, _ := filepath.Glob(filepath.Join(m.cfg.Dir, stagingPrefix+"*")); len(stages) > 0 {
		t.Errorf("left: %v", stages)
	}
	if now := temporaries(t); len(now) > len(before) {
		t.Errorf("temporary files: %v, before %v", now, before)
	}
}

func leave(t *testing.T, keep, name string, img banger.Image) {
	t.Helper()
	if keep == "" {
		return
	}
	dir := filepath.Join(keep, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{img.Rootfs, img.WorkSeed} {
		to := filepath.Join(dir, filepath.Base(path))
		argv := []string{"cp", "--sparse=always", path, to + ".new"}
		if err := errors.Join(host.Run(t.Context(), host.Command{Argv: argv}), os.Rename(to+".new", to)); err != nil {
			t.Fatal(err)
		}
	}
}

func debugfs(t *testing.T, image, command string) string {
	t.Helper()
	out, err := host.Output(t.Context(), host.Command{Argv: []string{"debugfs", "-R", command, image}})
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// recorder is a Reporter that logs stages with their times.
type recorder struct {
	t     *testing.T
	mu    sync.Mutex
	name  string
	begun time.Time
	names []string
	most  map[string]int64
	at    string // a stage at whose beginning then is called
	then  func()
}

func (r *recorder) ID() string { return "" }

func (r *recorder) Stage(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.name != "" {
		r.t.Logf("%-24s %v", r.name, time.Since(r.begun).Round(10*time.Millisecond))
	}
	r.name, r.begun = name, time.Now()
	r.names = append(r.names, name)
	if r.then != nil && name == r.at {
		r.then()
	}
}

func (r *recorder) Progress(done, total int64, unit string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.most == nil {
		r.most = map[string]int64{}
	}
	r.most[unit] = max(r.most[unit], done)
}
