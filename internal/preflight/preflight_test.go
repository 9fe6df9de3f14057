package preflight

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/google/go-cmp/cmp"
)

// answers is a check that answers so.
func answers(name, detail string, found ...Problem) Check {
	return Check{Name: name, Ask: func(context.Context) (string, []Problem) { return detail, found }}
}

func TestRefusal(t *testing.T) {
	t.Run("with nothing wrong, or nothing that matters, there is none", func(t *testing.T) {
		if err := Refusal(t.Context(), []Check{answers("a", "fine"), answers("b", "", Problem{Detail: "slow", Minor: true})}); err != nil {
			t.Error(err)
		}
	})
	t.Run("it has everything that is wrong, and each fix once", func(t *testing.T) {
		err := Refusal(t.Context(), []Check{
			answers("a", "", Problem{Detail: "no QEMU", Fix: "install it"}, Problem{Detail: "no agent", Fix: "install it"}),
			answers("b", "fine"),
			answers("c", "", Problem{Detail: "no image", Fix: "build one", Kind: api.KindDataLoss}),
		})
		if err == nil || err.Error() != "no QEMU; no agent; no image" || errkind.Hint(err) != "install it; build one" {
			t.Errorf("got %v, hint %q", err, errkind.Hint(err))
		}
		if !errkind.Is(err, api.KindUnavailable) {
			t.Errorf("kind %s is not the first problem's", errkind.Of(err))
		}
	})
	t.Run("when the request has ended, it is that", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("the caller is gone")
		cancel(gone)
		if err := Refusal(ctx, []Check{answers("a", "", Problem{Detail: "no QEMU"})}); !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
	})
}

func TestReport(t *testing.T) {
	mended := 0
	checks := []Check{
		answers("good", "all is well"),
		answers("bad", "", Problem{Detail: "it is broken", Fix: "buy another"}, Problem{Detail: "it is old", Fix: "wait", Minor: true}),
		answers("dirty", "", Problem{Detail: "a leftover", Fix: "remove it", Minor: true,
			Mend: func(context.Context) (string, error) { mended++; return "removed", nil }}),
		answers("stuck", "", Problem{Detail: "a lock", Fix: "remove it",
			Mend: func(context.Context) (string, error) {
				return "", errkind.WithHint(errors.New("it is not yours"), "ask its owner")
			}}),
	}
	t.Run("a finding for each problem, and one for a check without", func(t *testing.T) {
		want := []api.Check{
			{Name: "good", Status: OK, Detail: "all is well"},
			{Name: "bad", Status: Fail, Detail: "it is broken", Fix: "buy another"},
			{Name: "bad", Status: Warn, Detail: "it is old", Fix: "wait"},
			{Name: "dirty", Status: Warn, Detail: "a leftover", Fix: "remove it", Fixable: true},
			{Name: "stuck", Status: Fail, Detail: "a lock", Fix: "remove it", Fixable: true},
		}
		if diff := cmp.Diff(want, Report(t.Context(), checks, false)); diff != "" || mended > 0 {
			t.Errorf("mended %d times\n%s", mended, diff)
		}
	})
	t.Run("mending says what it did, or why it could not", func(t *testing.T) {
		want := []api.Check{
			{Name: "dirty", Status: Fixed, Detail: "a leftover: removed"},
			{Name: "stuck", Status: Fail, Detail: "a lock; to fix it failed: it is not yours", Fix: "ask its owner", Fixable: true},
		}
		if diff := cmp.Diff(want, Report(t.Context(), checks, true)[3:]); diff != "" || mended != 1 {
			t.Errorf("mended %d times\n%s", mended, diff)
		}
	})
	t.Run("a check that hangs is a finding", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			got := Report(t.Context(), []Check{{Name: "hanging", Ask: func(ctx context.Context) (string, []Problem) {
				<-ctx.Done()
				return Failed(context.Cause(ctx))
			}}}, false)
			if len(got) != 1 || got[0].Status != Fail || got[0].Detail != "check hanging has not ended within 20s" || got[0].Fix == "" {
				t.Errorf("got %+v", got)
			}
		})
	})
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wants checks that there is one problem for each text, which its detail has, and that each has a fix.
func wants(t *testing.T, found []Problem, texts ...string) {
	t.Helper()
	if len(found) != len(texts) {
		t.Fatalf("%d problems, want %d: %+v", len(found), len(texts), found)
	}
	for i, p := range found {
		if !strings.Contains(p.Detail, texts[i]) || p.Fix == "" {
			t.Errorf("got %+v, want %q and a fix", p, texts[i])
		}
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "vmlinux"), "a kernel")
	write(t, filepath.Join(dir, "boot/virtio.ko"), "a module")
	files, err := Record(t.Context(), dir, dir)
	if err != nil {
		t.Fatal(err)
	}
	recorded := banger.Kernel{Name: "k", Files: files}
	unrecorded := banger.Kernel{
		Name: "k", Image: filepath.Join(dir, "vmlinux"), Base: filepath.Join(dir, "boot"), BootModules: []string{"virtio.ko"},
		Modules: filepath.Join(dir, "vmlinux"),
	}
	all := func(k banger.Kernel) []Problem {
		return append(Kernel(k), KernelDigests(t.Context(), k, math.MaxInt64)...)
	}
	t.Run("files as they were published are no problem, recorded or not", func(t *testing.T) {
		wants(t, all(recorded))
		wants(t, all(unrecorded))
	})
	t.Run("other content of the same size is found by the digest, up to the limit", func(t *testing.T) {
		write(t, filepath.Join(dir, "vmlinux"), "a Kernel")
		wants(t, Kernel(recorded))
		wants(t, KernelDigests(t.Context(), recorded, 8), "vmlinux has changed")
		wants(t, KernelDigests(t.Context(), recorded, 7))
	})
	t.Run("a truncated file is found by its size", func(t *testing.T) {
		write(t, filepath.Join(dir, "vmlinux"), "a ker")
		wants(t, Kernel(recorded), `kernel "k": the file `+filepath.Join(dir, "vmlinux")+" has 5 bytes and had 8")
	})
	t.Run("an empty file and a missing one are found without a record too", func(t *testing.T) {
		write(t, filepath.Join(dir, "boot/virtio.ko"), "")
		os.Remove(filepath.Join(dir, "vmlinux"))
		wants(t, Kernel(unrecorded), "vmlinux is gone", "vmlinux is gone", "virtio.ko is empty")
	})
	t.Run("of an image without recorded files, sizes and a directory in a file's place are noticed", func(t *testing.T) {
		img := banger.Image{Name: "i", Rootfs: write(t, filepath.Join(dir, "rootfs"), "1234"), RootSize: 5, WorkSeed: dir, WorkSize: 5}
		wants(t, Image(img), "has 4 bytes and had 5", "is not a regular file")
	})
}

func TestDigest(t *testing.T) {
	dir := t.TempDir()
	sum := func(name string, fill func(f *os.File) error) string {
		t.Helper()
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := fill(f); err != nil {
			t.Fatal(err)
		}
		got, err := digest(t.Context(), f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	const size = 10*block + 7
	holes := sum("holes", func(f *os.File) error {
		_, err := f.WriteAt([]byte("data"), 5*block+100)
		return errors.Join(err, f.Truncate(size))
	})
	full := sum("full", func(f *os.File) error {
		b := make([]byte, size)
		copy(b[5*block+100:], "data")
		_, err := f.Write(b)
		return err
	})
	moved := sum("moved", func(f *os.File) error {
		_, err := f.WriteAt([]byte("data"), 6*block+100)
		return errors.Join(err, f.Truncate(size))
	})
	if holes != full {
		t.Errorf("with holes %s, without %s", holes, full)
	}
	if holes == moved {
		t.Error("the same data in another block has the same digest")
	}
	t.Run("it ends with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := digest(ctx, filepath.Join(dir, "full")); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestSpace(t *testing.T) {
	dir := t.TempDir()
	detail, found := Space(dir, 0, 0)
	if wants(t, found); !strings.Contains(detail, "free in "+dir) {
		t.Errorf("got %q", detail)
	}
	_, found = Space(dir, math.MaxInt64, 0)
	if wants(t, found, "are needed to begin"); found[0].Minor {
		t.Error("too little room is minor")
	}
	_, found = Space(dir, 0, math.MaxInt64)
	if wants(t, found, "free in "+dir); !found[0].Minor {
		t.Error("low room is not minor")
	}
	_, found = Space(filepath.Join(dir, "missing"), 0, 0)
	wants(t, found, "no such file")
}

func TestDirectories(t *testing.T) {
	root := t.TempDir()
	paths, err := config.FindPaths(func(name string) (string, bool) { return root, name == "BANGER_ROOT" })
	if err != nil {
		t.Fatal(err)
	}
	ask := func() []Problem {
		_, found := Directories(paths).Ask(t.Context())
		return found
	}
	t.Run("before the first daemon there are none, and nothing is wrong", func(t *testing.T) { wants(t, ask()) })
	if err := paths.Make(); err != nil {
		t.Fatal(err)
	}
	t.Run("those that were just made are right", func(t *testing.T) { wants(t, ask()) })
	t.Run("open ones and missing ones are found, and mended", func(t *testing.T) {
		write(t, paths.SSHKey(), "secret")
		if err := errors.Join(os.Chmod(paths.State, 0o755), os.Chmod(paths.SSHKey(), 0o644), os.Remove(paths.PatchesDir())); err != nil {
			t.Fatal(err)
		}
		found := ask()
		wants(t, found, "mode 0755", "patches is missing", "mode 0644")
		for _, p := range found {
			if done, err := p.Mend(t.Context()); err != nil || !strings.HasPrefix(done, "made private") {
				t.Errorf("%q %v", done, err)
			}
		}
		wants(t, ask())
	})
	t.Run("a file in a directory's place is for a person", func(t *testing.T) {
		if err := os.Remove(paths.PatchesDir()); err != nil {
			t.Fatal(err)
		}
		write(t, paths.PatchesDir(), "")
		found := ask()
		if wants(t, found, "is not a directory"); found[0].Mend != nil {
			t.Error("it would be mended")
		}
	})
}

func TestPrograms(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	_, found := Programs().Ask(t.Context())
	wants(t, found, "mmdebstrap")
	if !found[0].Minor {
		t.Error("VMs do not run without mmdebstrap")
	}
	for _, name := range []string{"mmdebstrap", "mke2fs", "e2fsck", "dpkg-deb", "apt-get", "depmod"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	_, found = Programs().Ask(t.Context())
	wants(t, found)
}
