package template

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/preflight"
)

// Inspect tells in words what templates there are, and what is wrong with them or kept one from being made. It reads their files of
// at most limit bytes. VMs run in any case: they boot.
func (l *Library) Inspect(ctx context.Context, limit int64) (string, []preflight.Problem) {
	if !l.cfg.On {
		return "warm_starts is off: VMs boot", nil
	}
	all, err := l.shelf()
	if err != nil {
		return preflight.Failed(err)
	}
	var found []preflight.Problem
	var sum int64
	for _, t := range all {
		sum += t.size
		found = append(found, l.inspect(ctx, t, limit)...)
	}
	return fmt.Sprintf("%d, which take %d of at most %d MiB", len(all), sum>>20, l.cfg.Budget>>20), append(found, l.failures()...)
}

// inspect tells what is wrong with one template. It can go: the next VM like it boots and has it made anew.
func (l *Library) inspect(ctx context.Context, t shelved, limit int64) []preflight.Problem {
	id := filepath.Base(t.dir)
	of, fix := fmt.Sprintf("template %s", id), "remove it, then it is made anew: `banger doctor --fix`"
	var found []preflight.Problem
	if t.wrong != nil {
		found = append(found, preflight.Problem{Detail: fmt.Sprintf("%s: %v", of, t.wrong), Fix: fix})
	} else {
		files := make([]banger.File, len(t.Files))
		for i, f := range t.Files {
			files[i] = f.File
			files[i].Path = filepath.Join(t.dir, f.Path)
		}
		found = preflight.Digests(ctx, of, files, limit, fix)
	}
	for i := range found {
		found[i].Minor = true
		found[i].Mend = func(context.Context) (string, error) { return "removed", l.removed(id) }
	}
	return found
}

// failures tells which templates could not be made.
func (l *Library) failures() []preflight.Problem {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []preflight.Problem
	for _, f := range l.failed {
		fix := fmt.Sprintf("see `banger daemon logs`; it is tried again after %v, and now by `banger template build`", retryAfter)
		if hint := errkind.Hint(f.err); hint != "" {
			fix = hint
		}
		found = append(found, preflight.Problem{Detail: f.err.Error(), Fix: fix, Minor: true})
	}
	slices.SortFunc(found, func(a, b preflight.Problem) int { return cmp.Compare(a.Detail, b.Detail) })
	return found
}
