package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/store"
	"github.com/banger-vm/banger/internal/store/storetest"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// addresses lets cmp compare what it cannot look into.
var addresses = cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}, netip.AddrPort{})

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 6789, time.UTC)

// newVM returns a VM in state created; n orders it among others.
func newVM(id banger.VMID, name string, n int) banger.VM {
	return banger.VM{ID: id, Name: name, State: banger.Created, Created: epoch.Add(time.Duration(n) * time.Second),
		Spec: banger.Spec{VCPU: 1, MemMiB: 512, VMM: "auto", HostKey: "secret pem"}}
}

func wantKind(t *testing.T, err error, kind errkind.Kind, words ...string) {
	t.Helper()
	if !errkind.Is(err, kind) || err == nil {
		t.Fatalf("got %v (kind %q), want kind %q", err, errkind.Of(err), kind)
	}
	text := err.Error() + "\n" + errkind.Hint(err)
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("error %q does not say %q", text, w)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestVM(t *testing.T) {
	ctx := t.Context()

	t.Run("comes back whole, its secret included", func(t *testing.T) {
		s := storetest.New(t)
		vm := newVM("aaaaaaaaaaaa", "web", 0)
		vm.Workspace = &banger.Workspace{GuestPath: "/root/x", BaseCommit: "c0ffee", Prepared: epoch}
		vm.Conditions = []banger.Condition{{Type: "network", Message: "gone", Since: epoch}}
		must(t, s.CreateVM(ctx, vm))
		got, err := s.GetVM(ctx, "web")
		must(t, err)
		if d := cmp.Diff(vm, got, addresses); d != "" {
			t.Error(d)
		}
		if string(got.Spec.HostKey) != "secret pem" {
			t.Errorf("host key was stored as %q", string(got.Spec.HostKey))
		}
	})

	t.Run("a name and an id are taken once", func(t *testing.T) {
		s := storetest.New(t)
		must(t, s.CreateVM(ctx, newVM("aaaaaaaaaaaa", "web", 0)))
		wantKind(t, s.CreateVM(ctx, newVM("bbbbbbbbbbbb", "web", 1)), api.KindExists, `"web"`, "banger vm list")
		wantKind(t, s.CreateVM(ctx, newVM("aaaaaaaaaaaa", "db", 1)), api.KindExists, `"aaaaaaaaaaaa"`)
	})

	t.Run("of many creations with one name one wins", func(t *testing.T) {
		s := storetest.New(t)
		var wg sync.WaitGroup
		errs := make([]error, 20)
		for i := range errs {
			wg.Go(func() { errs[i] = s.CreateVM(ctx, newVM(banger.NewID[banger.VMID](), "web", i)) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
				continue
			}
			wantKind(t, err, api.KindExists)
		}
		if won != 1 {
			t.Errorf("%d creations won", won)
		}
	})

	t.Run("is found by name, id and unique prefix", func(t *testing.T) {
		s := storetest.New(t)
		must(t, s.CreateVM(ctx, newVM("ab0000000001", "web", 0)))
		must(t, s.CreateVM(ctx, newVM("ab0000000002", "db", 1)))
		must(t, s.CreateVM(ctx, newVM("cd0000000003", "ab", 2)))
		must(t, s.CreateVM(ctx, newVM("f00000000004", "cd0000000003", 3)))
		for ref, want := range map[string]banger.VMID{
			"web": "ab0000000001", "ab0000000002": "ab0000000002", "c": "cd0000000003", "f0": "f00000000004",
			"ab":           "cd0000000003", // a name wins over a prefix
			"cd0000000003": "f00000000004", // and over an id
		} {
			got, err := s.GetVM(ctx, ref)
			must(t, err)
			if got.ID != want {
				t.Errorf("%q is %s, want %s", ref, got.ID, want)
			}
		}
		_, err := s.GetVM(ctx, "ab0")
		wantKind(t, err, api.KindInvalid, "web (ab0000000001)", "db (ab0000000002)")
		for _, ref := range []string{"nope", "ab00000000010", "we", "%", "'"} {
			_, err = s.GetVM(ctx, ref)
			wantKind(t, err, api.KindNotFound, ref, "banger vm list")
		}
		_, err = s.GetVM(ctx, "")
		wantKind(t, err, api.KindInvalid)
	})

	t.Run("an ambiguous prefix lists a few of many", func(t *testing.T) {
		s := storetest.New(t)
		for i := range 30 {
			must(t, s.CreateVM(ctx, newVM(banger.VMID(fmt.Sprintf("a%011d", i)), fmt.Sprintf("vm%d", i), i)))
		}
		_, err := s.GetVM(ctx, "a0")
		wantKind(t, err, api.KindInvalid, "vm0 (", "…")
		if n := strings.Count(err.Error(), "("); n > 10 {
			t.Errorf("%d candidates listed", n)
		}
	})

	t.Run("lists oldest first", func(t *testing.T) {
		s := storetest.New(t)
		must(t, s.CreateVM(ctx, newVM("aaaaaaaaaaaa", "third", 3)))
		must(t, s.CreateVM(ctx, newVM("bbbbbbbbbbbb", "first", 1)))
		must(t, s.CreateVM(ctx, newVM("cccccccccccc", "second", 2)))
		got, err := s.ListVMs(ctx)
		must(t, err)
		if len(got) != 3 || got[0].Name != "first" || got[1].Name != "second" || got[2].Name != "third" {
			t.Errorf("got %v", got)
		}
	})

	t.Run("is forgotten, twice without complaint", func(t *testing.T) {
		s := storetest.New(t)
		must(t, s.CreateVM(ctx, newVM("aaaaaaaaaaaa", "web", 0)))
		must(t, s.DeleteVM(ctx, "aaaaaaaaaaaa"))
		must(t, s.DeleteVM(ctx, "aaaaaaaaaaaa"))
		_, err := s.GetVM(ctx, "web")
		wantKind(t, err, api.KindNotFound)
		must(t, s.CreateVM(ctx, newVM("aaaaaaaaaaaa", "web", 0)))
	})
}

func TestUpdateVM(t *testing.T) {
	ctx := t.Context()
	s := storetest.New(t)
	must(t, s.CreateVM(ctx, newVM("aaaaaaaaaaaa", "web", 0)))
	must(t, s.CreateVM(ctx, newVM("bbbbbbbbbbbb", "db", 1)))

	t.Run("returns and keeps the change", func(t *testing.T) {
		vm, err := s.UpdateVM(ctx, "aaaaaaaaaaaa", func(vm *banger.VM) error {
			vm.State, vm.Name = banger.Starting, "www"
			return nil
		})
		must(t, err)
		got, err := s.GetVM(ctx, "www")
		must(t, err)
		if d := cmp.Diff(vm, got, addresses); d != "" || got.State != banger.Starting {
			t.Errorf("state %s, diff %s", got.State, d)
		}
	})
	t.Run("refuses a state that may not follow", func(t *testing.T) {
		_, err := s.UpdateVM(ctx, "bbbbbbbbbbbb", func(vm *banger.VM) error { vm.State = banger.Paused; return nil })
		wantKind(t, err, api.KindInternal, "created", "paused")
	})
	t.Run("an error of the function changes nothing and is passed on", func(t *testing.T) {
		mine := errors.New("mine")
		_, err := s.UpdateVM(ctx, "bbbbbbbbbbbb", func(vm *banger.VM) error { vm.LastError = "x"; return mine })
		if !errors.Is(err, mine) {
			t.Errorf("got %v", err)
		}
		got, err := s.GetVM(ctx, "db")
		must(t, err)
		if got.LastError != "" {
			t.Error("the change was kept")
		}
	})
	t.Run("a panic of the function leaves the store usable", func(t *testing.T) {
		func() {
			defer func() { _ = recover() }()
			_, _ = s.UpdateVM(ctx, "bbbbbbbbbbbb", func(*banger.VM) error { panic("mine") })
		}()
		_, err := s.UpdateVM(ctx, "bbbbbbbbbbbb", func(*banger.VM) error { return nil })
		must(t, err)
	})
	t.Run("refuses a name that is taken, a changed id, and an unknown VM", func(t *testing.T) {
		_, err := s.UpdateVM(ctx, "bbbbbbbbbbbb", func(vm *banger.VM) error { vm.Name = "www"; return nil })
		wantKind(t, err, api.KindExists, `"www"`)
		_, err = s.UpdateVM(ctx, "bbbbbbbbbbbb", func(vm *banger.VM) error { vm.ID = "cccccccccccc"; return nil })
		wantKind(t, err, api.KindInternal)
		_, err = s.UpdateVM(ctx, "bbbb", func(*banger.VM) error { return nil })
		wantKind(t, err, api.KindNotFound)
	})
	t.Run("concurrent changes all arrive", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				_, err := s.UpdateVM(ctx, "bbbbbbbbbbbb", func(vm *banger.VM) error { vm.Spec.MemMiB++; return nil })
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got, err := s.GetVM(ctx, "db")
		must(t, err)
		if got.Spec.MemMiB != 512+20 {
			t.Errorf("%d of 20 changes arrived", got.Spec.MemMiB-512)
		}
	})
	t.Run("a context that has ended changes nothing", func(t *testing.T) {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		_, err := s.UpdateVM(ended, "bbbbbbbbbbbb", func(vm *banger.VM) error { vm.Spec.MemMiB = 1; return nil })
		wantKind(t, err, api.KindCanceled)
	})
}

func TestImagesAndKernels(t *testing.T) {
	ctx := t.Context()
	s := storetest.New(t)
	kernel := banger.Kernel{ID: "eeeeeeeeeeee", Name: "cloud", Release: "6.1", Created: epoch,
		BootModules: []string{"virtio.ko"}, Facts: map[string]string{"EXT4_FS": "y"}}
	image := banger.Image{ID: "dddddddddddd", Name: "debian", Kernel: "cloud", RootSize: 2 << 30, Created: epoch}
	vm := newVM("aaaaaaaaaaaa", "web", 0)
	vm.Spec.ImageID, vm.Spec.KernelID = image.ID, kernel.ID

	t.Run("a VM needs both", func(t *testing.T) {
		wantKind(t, s.CreateVM(ctx, vm), api.KindNotFound, "banger image list")
		must(t, s.PutKernel(ctx, kernel))
		must(t, s.PutImage(ctx, image))
		must(t, s.CreateVM(ctx, vm))
	})
	t.Run("come back whole", func(t *testing.T) {
		k, err := s.GetKernel(ctx, "eee")
		must(t, err)
		i, err := s.GetImage(ctx, "debian")
		must(t, err)
		if d := cmp.Diff(kernel, k) + cmp.Diff(image, i); d != "" {
			t.Error(d)
		}
		ks, err := s.ListKernels(ctx)
		must(t, err)
		is, err := s.ListImages(ctx)
		must(t, err)
		if len(ks) != 1 || len(is) != 1 {
			t.Errorf("%d kernels, %d images", len(ks), len(is))
		}
	})
	t.Run("names are taken once", func(t *testing.T) {
		wantKind(t, s.PutKernel(ctx, banger.Kernel{ID: "1", Name: "cloud"}), api.KindExists, "banger kernel list")
		wantKind(t, s.PutImage(ctx, banger.Image{ID: "1", Name: "debian"}), api.KindExists, "banger image list")
	})
	t.Run("users are known by name", func(t *testing.T) {
		a, err := s.VMsUsingImage(ctx, image.ID)
		must(t, err)
		b, err := s.VMsUsingKernel(ctx, kernel.ID)
		must(t, err)
		c, err := s.ImagesUsingKernel(ctx, "cloud")
		must(t, err)
		if d := cmp.Diff([][]string{{"web"}, {"web"}, {"debian"}}, [][]string{a, b, c}); d != "" {
			t.Error(d)
		}
		none, err := s.VMsUsingImage(ctx, "ffffffffffff")
		must(t, err)
		if len(none) != 0 {
			t.Errorf("got %v", none)
		}
	})
	t.Run("an image is renamed in one transaction", func(t *testing.T) {
		got, err := s.UpdateImage(ctx, image.ID, func(i *banger.Image) error { i.Name, i.Kernel = "bookworm", "own"; return nil })
		must(t, err)
		users, err := s.ImagesUsingKernel(ctx, "own")
		must(t, err)
		if got.Name != "bookworm" || len(users) != 1 {
			t.Errorf("%+v, %v", got, users)
		}
	})
	t.Run("stay while a VM uses them", func(t *testing.T) {
		wantKind(t, s.DeleteImage(ctx, image.ID), api.KindPrecondition, "banger vm list")
		wantKind(t, s.DeleteKernel(ctx, kernel.ID), api.KindPrecondition)
		must(t, s.DeleteVM(ctx, vm.ID))
		for range 2 {
			must(t, s.DeleteImage(ctx, image.ID))
			must(t, s.DeleteKernel(ctx, kernel.ID))
		}
	})
}

func TestOperations(t *testing.T) {
	ctx := t.Context()
	s := storetest.New(t)
	put := func(id string, n int, state api.OperationState) {
		t.Helper()
		must(t, s.PutOperation(ctx, api.Operation{ID: id, Kind: "vm.create", State: state, Created: epoch.Add(time.Duration(n))}))
	}
	put("aa1", 1, api.OperationRunning)
	put("aa2", 2, api.OperationRunning)
	put("bb3", 3, api.OperationFailed)
	put("aa1", 1, api.OperationSucceeded)

	ids := func(limit int) (out []string) {
		t.Helper()
		ops, err := s.ListOperations(ctx, limit)
		must(t, err)
		for _, op := range ops {
			out = append(out, op.ID+" "+string(op.State))
		}
		return out
	}
	t.Run("list newest first, up to a limit", func(t *testing.T) {
		if d := cmp.Diff([]string{"bb3 failed", "aa2 running", "aa1 succeeded"}, ids(0)); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff([]string{"bb3 failed", "aa2 running"}, ids(2)); d != "" {
			t.Error(d)
		}
	})
	t.Run("are found by id and prefix", func(t *testing.T) {
		op, err := s.GetOperation(ctx, "b")
		must(t, err)
		if op.ID != "bb3" {
			t.Errorf("got %s", op.ID)
		}
		_, err = s.GetOperation(ctx, "aa")
		wantKind(t, err, api.KindInvalid, "aa1, aa2")
		for _, ref := range []string{"", "zz"} {
			_, err = s.GetOperation(ctx, ref)
			wantKind(t, err, api.KindNotFound)
		}
	})
	t.Run("those that ran are interrupted at start, once", func(t *testing.T) {
		ops, err := s.InterruptOperations(ctx)
		must(t, err)
		if len(ops) != 1 || ops[0].ID != "aa2" || ops[0].State != api.OperationInterrupted || ops[0].Error == nil || ops[0].Ended.IsZero() {
			t.Errorf("got %+v", ops)
		}
		stored, err := s.GetOperation(ctx, "aa2")
		must(t, err)
		if d := cmp.Diff(ops[0], stored); d != "" {
			t.Error(d)
		}
		ops, err = s.InterruptOperations(ctx)
		must(t, err)
		if len(ops) != 0 {
			t.Errorf("again: %+v", ops)
		}
	})
	t.Run("old ones are forgotten, running ones never", func(t *testing.T) {
		put("cc0", 0, api.OperationRunning)
		must(t, s.PruneOperations(ctx, 1))
		if d := cmp.Diff([]string{"bb3 failed", "cc0 running"}, ids(0)); d != "" {
			t.Error(d)
		}
	})
}

func TestOpen(t *testing.T) {
	ctx := t.Context()

	t.Run("keeps what was stored, in a private file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a b?c#d%20.db") // characters that mean something in a URI
		must(t, os.WriteFile(path, nil, 0o644))
		s, err := store.Open(ctx, path)
		must(t, err)
		must(t, s.CreateVM(ctx, newVM("aaaaaaaaaaaa", "web", 0)))
		for _, suffix := range []string{"", "-wal", "-shm"} {
			st, err := os.Stat(path + suffix)
			must(t, err)
			if st.Mode().Perm() != 0o600 {
				t.Errorf("mode of %q is %v", suffix, st.Mode())
			}
		}
		if !s.Fresh() {
			t.Error("a new database is not fresh")
		}
		must(t, s.Close())
		s, err = store.Open(ctx, path)
		must(t, err)
		defer s.Close()
		if s.Fresh() {
			t.Error("an old database is fresh")
		}
		_, err = s.GetVM(ctx, "web")
		must(t, err)
	})
	t.Run("refuses what is no database", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		must(t, os.WriteFile(path, []byte(strings.Repeat("not a database ", 100)), 0o600))
		_, err := store.Open(ctx, path)
		wantKind(t, err, api.KindDataLoss, path)
	})
	t.Run("a database that is damaged in the middle is found by a check", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.db")
		s, err := store.Open(ctx, path)
		must(t, err)
		for i := range 300 {
			must(t, s.CreateVM(ctx, newVM(banger.VMID(fmt.Sprintf("%012x", i)), fmt.Sprintf("vm-%d", i), i)))
		}
		must(t, s.Check(ctx))
		must(t, s.Close())
		b, err := os.ReadFile(path)
		must(t, err)
		copy(b[len(b)/2:], bytes.Repeat([]byte{0xff}, 8192))
		must(t, os.WriteFile(path, b, 0o600))
		s, err = store.Open(ctx, path)
		must(t, err)
		defer s.Close()
		wantKind(t, s.Check(ctx), api.KindDataLoss)
	})
	t.Run("refuses a symbolic link and a directory that is not there", func(t *testing.T) {
		dir := t.TempDir()
		must(t, os.Symlink("elsewhere", filepath.Join(dir, "x.db")))
		if _, err := store.Open(ctx, filepath.Join(dir, "x.db")); err == nil {
			t.Error("opened a symbolic link")
		}
		if _, err := store.Open(ctx, filepath.Join(dir, "no", "x.db")); err == nil {
			t.Error("opened a file in no directory")
		}
	})
}
