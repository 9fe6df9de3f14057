package template

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
	"github.com/banger-vm/banger/internal/preflight"
	"github.com/banger-vm/banger/internal/vm/capability"
	"github.com/banger-vm/banger/internal/vm/spec"
)

const (
	// quietFor is how long the daemon must have had nothing to do before a template is made, which takes as much of the host as a boot.
	quietFor  = 2 * time.Second
	lookEvery = 250 * time.Millisecond
	// makeTimeout is many times what an emulated boot takes on a busy host.
	makeTimeout = 5 * time.Minute
)

// The named steps of making, each a failpoint.
const (
	stepBooted    = "template.booted" // the guest waits to become somebody
	stepSaved     = "template.saved"
	stepPublished = "template.published"
)

// Steps returns the names of the failpoints, for fault tests.
func Steps() []string { return []string{stepBooted, stepSaved, stepPublished} }

// Make makes the templates that are wanted until ctx ends.
func (l *Library) Make(ctx context.Context) {
	for {
		select {
		case w := <-l.wanted:
			if l.waitQuiet(ctx) != nil {
				return
			}
			if err := l.make(ctx, w); err != nil && ctx.Err() == nil {
				l.cfg.Log.Warn("no template: VMs like it go on booting", "err", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// waitQuiet waits until the daemon has been idle for a moment.
func (l *Library) waitQuiet(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for since := time.Now(); time.Since(since) < quietFor; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if l.cfg.Busy() {
			since = time.Now()
		}
	}
	return nil
}

// Build makes a template for VMs like that of r now, or finds the one that there is.
func (l *Library) Build(ctx context.Context, r *capability.Run, rep opstate.Reporter) (api.Template, error) {
	if why := l.unfit(r); why != "" {
		return api.Template{}, errkind.New(api.KindUnavailable, "VMs like that do not start warm: %s", why)
	}
	key, err := l.key(r)
	if err != nil {
		return api.Template{}, err
	}
	w := wish{key, like(r)}
	w.of.Report = rep
	if err := l.make(ctx, w); err != nil {
		return api.Template{}, err
	}
	dir := l.dir(key)
	t := look(dir)
	return t.describe(), t.wrong
}

// make makes the template of w, unless there is one, and notes how that ended.
func (l *Library) make(ctx context.Context, w wish) error {
	l.making.Lock()
	defer l.making.Unlock()
	if _, err := open(l.dir(w.key)); err == nil {
		return nil
	}
	begun := time.Now()
	err := l.makeOne(ctx, w)
	if err == nil {
		l.cfg.Log.Info("template made", "template", w.key.id(), "image", w.key.Image, "took", time.Since(begun))
		err = l.fit(ctx, w.key)
	}
	if err != nil {
		err = fmt.Errorf("make a template of image %q: %w", w.key.Image, err)
	}
	if ctx.Err() == nil { // else nobody wanted it any more
		l.note(w.key, err)
	}
	return err
}

// room refuses to make a template where the host's disk may become full of it: a VMM that cannot write memory to its file dies, and
// VMs that run need the disk more.
func (l *Library) room(memMiB int) error {
	need := int64(preflight.StartReserve) + int64(memMiB)<<20
	_, found := preflight.Space(l.cfg.Dir, need, need)
	return preflight.Refuse(found)
}

// makeOne boots a guest that is nobody's, saves it, and publishes what that gives.
func (l *Library) makeOne(ctx context.Context, w wish) (err error) {
	ctx, cancel := context.WithTimeout(ctx, makeTimeout)
	defer cancel()
	r := w.of
	if err := l.room(r.VM.Spec.MemMiB); err != nil {
		return err
	}
	r.VM.ID = banger.NewID[banger.VMID]()
	if r.VM.Spec, err = spec.Identify(r.VM.Spec, r.VM.ID); err != nil {
		return err
	}
	r.Dir, r.RunDir = filepath.Join(l.cfg.Dir, makingPrefix+string(r.VM.ID)), l.cfg.RunDir(r.VM.ID)
	if err := host.PrivateDir(r.Dir); err != nil {
		return err
	}
	if err := l.fill(ctx, r, w.key); err != nil {
		return errors.Join(err, l.cfg.Chain.Dispose(ctx, r))
	}
	if err := l.publish(ctx, r.Dir, l.dir(w.key)); err != nil {
		return errors.Join(err, l.cfg.Chain.Dispose(ctx, r))
	}
	return nil
}

// fit prunes what is beyond the budget. It is an error when that is the template that was just made: to make it again is vain.
func (l *Library) fit(ctx context.Context, key Key) error {
	gone, err := l.PruneUseless(ctx)
	if err != nil {
		return err
	}
	for _, t := range gone {
		if t.ID == key.id() && l.cfg.Known(ctx, key) {
			return errkind.WithHint(
				errkind.New(api.KindPrecondition, "it takes %d MiB, and template_budget is %d", t.Size>>20, l.cfg.Budget>>20),
				"raise template_budget in the configuration (`banger config edit`), or set warm_starts = false")
		}
	}
	return nil
}

// fill makes the files of a template in r.Dir.
func (l *Library) fill(ctx context.Context, r *capability.Run, key Key) error {
	if err := l.cfg.Chain.Attach(ctx, r); err != nil {
		return err
	}
	err := l.save(ctx, r)
	if detachErr := l.cfg.Chain.Detach(context.WithoutCancel(ctx), r); err == nil {
		err = detachErr
	}
	if err != nil {
		return err
	}
	r.Report.Stage("record files")
	m, err := describe(ctx, r.Dir, key)
	if err != nil {
		return err
	}
	return writeManifest(r.Dir, m)
}

func (l *Library) save(ctx context.Context, r *capability.Run) error {
	if err := l.cfg.Points.Hit(ctx, stepBooted); err != nil {
		return err
	}
	s, err := saver(r.Machine)
	if err != nil {
		return err
	}
	r.Report.Stage("save guest")
	if err := s.Save(ctx, filepath.Join(r.Dir, stateFile)); err != nil {
		return err
	}
	return l.cfg.Points.Hit(ctx, stepSaved)
}

// publish gives the finished directory its name, in place of a damaged template that may have it.
func (l *Library) publish(ctx context.Context, from, to string) error {
	if err := host.RemoveDir(to); err != nil {
		return err
	}
	if err := host.Sync(from); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return l.cfg.Points.Hit(ctx, stepPublished)
}
