package template

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/failpoint"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vmm"
)

// Config is what a library works with.
type Config struct {
	Dir    string                            // of the templates
	RunDir func(id banger.VMID) string       // for sockets of a machine that becomes a template
	Chain  *capability.Chain                 // boots their guests
	Agent  func() (digest string, err error) // the agent that guests run now
	On     bool                              // whether VMs begin with templates
	Taps   bool                              // VMs have tap devices
	Budget int64                             // bytes of disk that templates may take
	Known  func(context.Context, Key) bool   // whether its image and its kernel are still there
	Busy   func() bool                       // whether the daemon has something better to do
	Points failpoint.Set
	Log    *slog.Logger
}

// Library is the templates there are.
type Library struct {
	cfg    Config
	cpu    string
	wanted chan wish // capacity 1: what is not taken is wished for again by the next start

	mu     sync.Mutex         // guards failed: starts look while one is made
	failed map[string]failure // by the template's id, until it is made or the daemon ends
	making sync.Mutex         // one is made at a time
}

// failure is why a template could not be made.
type failure struct {
	err error
	at  time.Time
}

// retryAfter is how long starts want no template that could not be made: each try takes as much of the host as a boot.
const retryAfter = 10 * time.Minute

// wish is a template that a start would have liked.
type wish struct {
	key Key
	of  *capability.Run // its image, kernel and driver
}

// New returns a library. Call [Library.Sweep] before anything else.
func New(cfg Config) *Library {
	return &Library{cfg: cfg, cpu: host.CPUModel(), wanted: make(chan wish, 1), failed: map[string]failure{}}
}

func (l *Library) dir(key Key) string { return filepath.Join(l.cfg.Dir, key.id()) }

// Find returns the template that a run can begin with, or why there is none, for people.
func (l *Library) Find(r *capability.Run) (*capability.Template, string) {
	if why := l.unfit(r); why != "" {
		return nil, why
	}
	key, err := l.key(r)
	if err != nil {
		return nil, err.Error()
	}
	dir := l.dir(key)
	m, err := open(dir)
	if err == nil && m.Key != key {
		err = errkind.New(api.KindDataLoss, "the template is damaged: it is another one")
	}
	if err != nil {
		if f, ok := l.failure(key); ok {
			err = f.err
		}
		return nil, err.Error()
	}
	l.used(dir)
	return m.template(dir), ""
}

func (l *Library) failure(key Key) (failure, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, ok := l.failed[key.id()]
	return f, ok
}

// note notes how it ended to make a template.
func (l *Library) note(key Key, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.failed, key.id())
	} else {
		l.failed[key.id()] = failure{err, time.Now()}
	}
}

// used notes that a template was used now.
func (l *Library) used(dir string) {
	now := time.Now()
	if err := os.Chtimes(dir, now, now); err != nil {
		l.cfg.Log.Debug("note the use of a template", "dir", dir, "err", err) // it was just removed
	}
}

// unfit says why a VM is not begun with a template, whichever there are.
func (l *Library) unfit(r *capability.Run) string {
	switch {
	case !l.cfg.On:
		return "warm_starts is off"
	case r.VM.Spec.Cold:
		return "it was made with --cold"
	case !r.VM.Started.IsZero():
		return "its disks have been used"
	case r.VM.Spec.Init != guestapi.InitAgent:
		return "its image has an init of its own"
	case !r.Driver.Features().Snapshot:
		return r.Driver.Name() + " does not restore machines"
	case l.cfg.Taps:
		return "VMs are on a bridge"
	case r.VM.Spec.Cloner == disk.DMSnap:
		return "its disks are of the device mapper"
	}
	return ""
}

func (l *Library) key(r *capability.Run) (Key, error) {
	agent, err := l.cfg.Agent()
	return Key{
		ImageID: r.Image.ID, Image: r.Image.Name, KernelID: r.Kernel.ID, Agent: agent, Engine: r.Driver.Features().Engine, CPU: l.cpu,
		VCPU: r.VM.Spec.VCPU, MemMiB: r.VM.Spec.MemMiB, Cloner: r.VM.Spec.Cloner,
	}, err
}

// Want has a template made in the background for VMs like that of r, unless there is a good one or it could not be made just now.
func (l *Library) Want(r *capability.Run) {
	if l.unfit(r) != "" {
		return
	}
	key, err := l.key(r)
	if err != nil {
		return // the next boot says so
	}
	if _, err := open(l.dir(key)); err == nil {
		return
	}
	if f, ok := l.failure(key); ok && time.Since(f.at) < retryAfter {
		return
	}
	select {
	case l.wanted <- wish{key, like(r)}:
	default:
	}
}

// like is what a template's run has of a VM's.
func like(r *capability.Run) *capability.Run {
	spec := banger.Spec{
		Init: guestapi.InitAgent, VCPU: r.VM.Spec.VCPU, MemMiB: r.VM.Spec.MemMiB, Cloner: r.VM.Spec.Cloner,
		RootSize: r.Image.RootSize, WorkSize: r.Image.WorkSize,
	}
	return &capability.Run{VM: banger.VM{Name: "template", Spec: spec}, Image: r.Image, Kernel: r.Kernel, Driver: r.Driver,
		Report: opstate.Discard, Making: true}
}

// Distrust removes a template from which a VM did not start.
func (l *Library) Distrust(t *capability.Template, why error) {
	l.cfg.Log.Warn("removing a template from which a VM did not start", "template", t.ID, "err", why)
	if err := l.removed(t.ID); err != nil {
		l.cfg.Log.Error("remove a template", "template", t.ID, "err", err)
	}
}

// shelf returns the templates there are, those that were used last at the end.
func (l *Library) shelf() ([]shelved, error) {
	entries, err := os.ReadDir(l.cfg.Dir)
	if err != nil {
		return nil, err
	}
	var all []shelved
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), makingPrefix) {
			all = append(all, look(filepath.Join(l.cfg.Dir, e.Name())))
		}
	}
	slices.SortFunc(all, func(a, b shelved) int { return a.used.Compare(b.used) })
	return all, nil
}

// List returns the templates, those that were used last at the end. One that is damaged says so.
func (l *Library) List() ([]api.Template, error) {
	all, err := l.shelf()
	out := []api.Template{}
	for _, t := range all {
		out = append(out, t.describe())
	}
	return out, err
}

// Remove removes a template. VMs that began with it go on.
func (l *Library) Remove(id string) error {
	if id == "" || filepath.Base(id) != id || strings.HasPrefix(id, makingPrefix) || id == "." || id == ".." {
		return errkind.New(api.KindInvalid, "bad template id %q", id)
	}
	dir := filepath.Join(l.cfg.Dir, id)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return errkind.WithHint(errkind.New(api.KindNotFound, "no template %q", id), "see `banger template list`")
	}
	// The manifest goes first: what a crash leaves is no template.
	if err := os.Remove(filepath.Join(dir, manifestFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return host.RemoveDir(dir)
}

// removed is Remove, but for one that somebody else has removed.
func (l *Library) removed(id string) error {
	if err := l.Remove(id); !errkind.Is(err, api.KindNotFound) {
		return err
	}
	return nil
}

// PruneUseless removes the templates that are damaged or that no VM could begin with any more, and then those that were used longest
// ago until the rest is within the budget. It returns what went.
func (l *Library) PruneUseless(ctx context.Context) ([]api.Template, error) {
	agent, err := l.cfg.Agent()
	if err != nil {
		return nil, err
	}
	return l.prune(l.cfg.Budget, func(k Key) bool { return k.Agent == agent && k.CPU == l.cpu && l.cfg.Known(ctx, k) })
}

// PruneAll removes all templates, and returns them.
func (l *Library) PruneAll() ([]api.Template, error) {
	return l.prune(0, func(Key) bool { return false })
}

func (l *Library) prune(budget int64, keep func(Key) bool) ([]api.Template, error) {
	all, err := l.shelf()
	if err != nil {
		return nil, err
	}
	all, gone := split(all, func(t shelved) bool { return t.wrong == nil && keep(t.Key) })
	var sum int64
	for _, t := range all {
		sum += t.size
	}
	for len(all) > 0 && sum > budget {
		sum -= all[0].size
		all, gone = all[1:], append(gone, all[0])
	}
	out := []api.Template{}
	for _, t := range gone {
		if err := l.removed(filepath.Base(t.dir)); err != nil {
			return out, err
		}
		out = append(out, t.describe())
	}
	return out, nil
}

func split(all []shelved, good func(shelved) bool) (keep, drop []shelved) {
	for _, t := range all {
		if good(t) {
			keep = append(keep, t)
		} else {
			drop = append(drop, t)
		}
	}
	return keep, drop
}

// Sweep ends and removes what an earlier daemon was making when it ended.
func (l *Library) Sweep(ctx context.Context) error {
	left, err := filepath.Glob(filepath.Join(l.cfg.Dir, makingPrefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range left {
		id := banger.VMID(strings.TrimPrefix(filepath.Base(dir), makingPrefix))
		r := capability.Run{VM: banger.VM{ID: id, Name: "template"}, Dir: dir, RunDir: l.cfg.RunDir(id), Report: opstate.Discard, Making: true}
		l.cfg.Log.Info("removing a template that was not finished", "dir", dir)
		errs = append(errs, l.cfg.Chain.Dispose(ctx, &r))
	}
	return errors.Join(errs...)
}

// makingPrefix is before the id of the machine in the name of a template's directory while it is made.
const makingPrefix = "making-"

// Saver is what the machine of a template must be.
func saver(m vmm.Machine) (vmm.Saver, error) {
	if s, ok := m.(vmm.Saver); ok {
		return s, nil
	}
	return nil, errkind.New(api.KindInternal, "%s saves no machines", m.Handle().Driver)
}

func writeManifest(dir string, m manifest) error {
	b, err := json.MarshalIndent(m, "", "\t")
	if err != nil {
		return err
	}
	return host.WriteFile(filepath.Join(dir, manifestFile), b, 0o600)
}
