package template

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/failpoint"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/fake"
)

// press is a library whose guests are files of 1 MiB.
type press struct {
	*Library
	t     *testing.T
	gone  map[banger.ImageID]bool // images that were deleted
	fails error                   // what booting a guest ends with
	boots int
}

func newPress(t *testing.T, budget int64) *press {
	p := &press{t: t, gone: map[banger.ImageID]bool{}}
	log := slog.New(slog.DiscardHandler)
	dir := t.TempDir()
	p.Library = New(Config{
		Dir: dir, RunDir: func(id banger.VMID) string { return filepath.Join(dir, "run", string(id)) },
		Chain: capability.NewChain([]capability.Capability{p}, nil, log), Agent: func() (string, error) { return "agent", nil }, On: true, Budget: budget,
		Known: func(_ context.Context, k Key) bool { return !p.gone[k.ImageID] }, Busy: func() bool { return false }, Points: failpoint.Set{}, Log: log,
	})
	return p
}

// Name implements capability.Capability.
func (*press) Name() string { return "press" }

// Attach makes what a boot makes of a template's files, and one that is no template's.
func (p *press) Attach(_ context.Context, r *capability.Run) error {
	p.boots++
	for _, name := range []string{"root.raw", "work.raw", memoryFile, "console.log"} {
		if err := os.WriteFile(filepath.Join(r.Dir, name), []byte(strings.Repeat("x", 1<<20)), 0o600); err != nil {
			return err
		}
	}
	r.Machine = pressed{}
	return p.fails
}

// Detach implements capability.Capability.
func (*press) Detach(context.Context, *capability.Run) error { return nil }

// pressed is a machine that can be saved, and nothing else.
type pressed struct{ vmm.Machine }

// Save implements vmm.Saver.
func (pressed) Save(_ context.Context, state string) error {
	return os.WriteFile(state, []byte("state"), 0o600)
}

// run is one of a VM of an image.
func (p *press) run(image banger.ImageID) *capability.Run {
	return &capability.Run{
		VM:    banger.VM{Spec: banger.Spec{Init: guestapi.InitAgent, VCPU: 1, MemMiB: 256, Cloner: "copy"}},
		Image: banger.Image{ID: image, Name: string(image)}, Driver: fake.NewHost(fake.Config{}).Driver(),
	}
}

// build makes the template of an image, which was used as long ago as age, and returns its id.
func (p *press) build(image banger.ImageID, age time.Duration) string {
	p.t.Helper()
	made, err := p.Build(p.t.Context(), p.run(image), opstate.Discard)
	if err != nil {
		p.t.Fatal(err)
	}
	used := time.Now().Add(-age)
	if err := os.Chtimes(filepath.Join(p.cfg.Dir, made.ID), used, used); err != nil {
		p.t.Fatal(err)
	}
	return made.ID
}

func (p *press) ids() []string {
	p.t.Helper()
	all, err := p.List()
	if err != nil {
		p.t.Fatal(err)
	}
	var ids []string
	for _, t := range all {
		ids = append(ids, t.ID)
	}
	return ids
}

// damage overwrites a byte of a template's file and hides that from who looks at size and time only.
func (p *press) damage(id, name string, hidden bool) {
	p.t.Helper()
	path := filepath.Join(p.cfg.Dir, id, name)
	st, err := os.Stat(path)
	if err != nil {
		p.t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	b[0]++
	err = os.WriteFile(path, b, 0o600)
	if hidden {
		err = errors.Join(err, os.Chtimes(path, st.ModTime(), st.ModTime()))
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func TestFiles(t *testing.T) {
	p := newPress(t, math.MaxInt64)
	id := p.build("debian", 0)
	entries, err := os.ReadDir(filepath.Join(p.cfg.Dir, id))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{memoryFile, "root.raw", stateFile, manifestFile, "work.raw"}; !slices.Equal(names, want) {
		t.Errorf("a template has the files %q, want %q", names, want)
	}
}

func TestBudget(t *testing.T) {
	const one = 3<<20 + 64<<10 // of disk, one template and not two
	t.Run("what was used longest ago goes first", func(t *testing.T) {
		p := newPress(t, math.MaxInt64)
		old, older, oldest := p.build("old", time.Hour), p.build("older", 2*time.Hour), p.build("oldest", 3*time.Hour)
		p.cfg.Budget = 2 * one
		gone, err := p.PruneUseless(t.Context())
		if err != nil || len(gone) != 1 || gone[0].ID != oldest {
			t.Errorf("%+v went, %v", gone, err)
		}
		if got, want := p.ids(), []string{older, old}; !slices.Equal(got, want) {
			t.Errorf("left are %q, want %q", got, want)
		}
	})
	t.Run("what no VM could begin with goes before what was used longest ago", func(t *testing.T) {
		p := newPress(t, one)
		kept := p.build("kept", 2*time.Hour)
		p.gone["deleted"] = true
		if _, err := p.Build(t.Context(), p.run("deleted"), opstate.Discard); !errkind.Is(err, api.KindNotFound) {
			t.Errorf("got %v", err)
		}
		if got := p.ids(); !slices.Equal(got, []string{kept}) {
			t.Errorf("left are %q, want %q", got, kept)
		}
	})
	t.Run("one that is beyond the budget by itself is an error that says so, and is not made at every start", func(t *testing.T) {
		p := newPress(t, one/2)
		_, err := p.Build(t.Context(), p.run("debian"), opstate.Discard)
		if !errkind.Is(err, api.KindPrecondition) || !strings.Contains(errkind.Hint(err), "template_budget") {
			t.Fatalf("%v, hint %q", err, errkind.Hint(err))
		}
		if _, why := p.Find(p.run("debian")); why != err.Error() {
			t.Errorf("a start says %q, want %q", why, err)
		}
		if p.Want(p.run("debian")); len(p.wanted) > 0 {
			t.Error("a start wants it again")
		}
	})
}

func TestFailure(t *testing.T) {
	p := newPress(t, math.MaxInt64)
	p.fails = errors.New("no guest today")
	if _, err := p.Build(t.Context(), p.run("debian"), opstate.Discard); !errors.Is(err, p.fails) {
		t.Fatal(err)
	}
	key, err := p.key(p.run("debian"))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("it leaves nothing, and starts and doctor say why", func(t *testing.T) {
		if left, err := os.ReadDir(p.cfg.Dir); err != nil || len(left) > 0 {
			t.Errorf("left are %v, %v", left, err)
		}
		if found, why := p.Find(p.run("debian")); found != nil || !strings.Contains(why, "no guest today") {
			t.Errorf("a start finds %v: %s", found, why)
		}
		if _, found := p.Inspect(t.Context(), 0); len(found) != 1 || !found[0].Minor || !strings.Contains(found[0].Detail, "no guest today") {
			t.Errorf("doctor finds %+v", found)
		}
	})
	t.Run("a start wants it again only after a while", func(t *testing.T) {
		if p.Want(p.run("debian")); len(p.wanted) > 0 {
			t.Error("it is wanted at once")
		}
		p.failed[key.id()] = failure{p.fails, time.Now().Add(-retryAfter)}
		if p.Want(p.run("debian")); len(p.wanted) != 1 {
			t.Error("it is not wanted any more")
		}
	})
	t.Run("one that ends with its request is no failure", func(t *testing.T) {
		p.note(key, nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := p.Build(ctx, p.run("debian"), opstate.Discard); err == nil {
			t.Fatal("it was made")
		}
		if f, ok := p.failure(key); ok {
			t.Errorf("noted is %v", f.err)
		}
	})
	t.Run("it is forgotten when the template is made", func(t *testing.T) {
		p.note(key, p.fails)
		p.fails = nil
		p.build("debian", 0)
		if found, why := p.Find(p.run("debian")); found == nil {
			t.Errorf("a start boots: %s", why)
		}
		if detail, found := p.Inspect(t.Context(), math.MaxInt64); len(found) > 0 {
			t.Errorf("doctor finds %+v: %s", found, detail)
		}
	})
}

func TestFullDisk(t *testing.T) {
	p := newPress(t, math.MaxInt64)
	r := p.run("large")
	r.VM.Spec.MemMiB = 1 << 30 // a petabyte
	if _, err := p.Build(t.Context(), r, opstate.Discard); !errkind.Is(err, api.KindUnavailable) || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("got %v", err)
	}
	if p.boots > 0 {
		t.Error("a guest was booted all the same")
	}
}

func TestInspect(t *testing.T) {
	for _, name := range []string{memoryFile, "root.raw", "work.raw", stateFile, manifestFile} {
		t.Run("another "+name+" is found, mended, and not used", func(t *testing.T) {
			p := newPress(t, math.MaxInt64)
			good, bad := p.build("good", time.Hour), p.build("bad", 0)
			p.damage(bad, name, false)
			if found, why := p.Find(p.run("bad")); found != nil || !strings.Contains(why, "damaged") {
				t.Errorf("a start finds %v: %s", found, why)
			}
			p.mends(bad, good, 0)
		})
	}
	for _, name := range []string{memoryFile, "root.raw", "work.raw"} {
		t.Run("another "+name+" of the same size and time is found by reading it all", func(t *testing.T) {
			p := newPress(t, math.MaxInt64)
			good, bad := p.build("good", time.Hour), p.build("bad", 0)
			p.damage(bad, name, true)
			if _, found := p.Inspect(t.Context(), 1<<20-1); len(found) > 0 {
				t.Errorf("without reading it doctor finds %+v", found)
			}
			p.mends(bad, good, math.MaxInt64)
		})
	}
}

// mends fails the test unless doctor finds what is wrong with the one template, removes it, and leaves the other.
func (p *press) mends(bad, good string, limit int64) {
	p.t.Helper()
	ask := preflight.Check{Name: "templates", Ask: func(ctx context.Context) (string, []preflight.Problem) { return p.Inspect(ctx, limit) }}
	found := preflight.Report(p.t.Context(), []preflight.Check{ask}, true)
	if len(found) != 1 || found[0].Status != preflight.Fixed || !strings.Contains(found[0].Detail, bad) {
		p.t.Errorf("doctor finds %+v", found)
	}
	if got := p.ids(); !slices.Equal(got, []string{good}) {
		p.t.Errorf("left are %q, want %q", got, good)
	}
}
