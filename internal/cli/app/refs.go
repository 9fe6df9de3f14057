package app

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// Target is something a reference was resolved to.
type Target struct{ ID, Name string }

// Each resolves all references, then calls do for each target concurrently, at most eight at a time, and prints what
// succeeded by name. A reference that is bad or fails does not stop the others; two that mean the same are done once. The
// error holds every failure in the order of the references.
func (a *App) Each(ctx context.Context, refs []string, resolve func(ctx context.Context, ref string) (Target, error),
	do func(ctx context.Context, t Target) error) error {
	const atOnce = 8
	targets, errs := make([]Target, len(refs)), make([]error, len(refs))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, ref := range refs {
		g.Go(func() error { targets[i], errs[i] = resolve(ctx, ref); return nil })
	}
	g.Wait()
	seen := map[string]bool{}
	for i := range refs {
		if errs[i] != nil || seen[targets[i].ID] {
			targets[i].ID = ""
			continue
		}
		seen[targets[i].ID] = true
		g.Go(func() error { errs[i] = do(ctx, targets[i]); return nil })
	}
	g.Wait()
	var failed Errors
	for i, err := range errs {
		switch {
		case err != nil:
			failed = append(failed, err)
		case targets[i].ID != "":
			fmt.Fprintln(a.Out, targets[i].Name)
		}
	}
	return failed.orNil()
}

func (e Errors) orNil() error {
	switch len(e) {
	case 0:
		return nil
	case 1:
		return e[0]
	}
	return e
}

// ShowEach gets and prints what each reference names: one after the other as descriptions, or as one JSON or YAML value, which
// is a list when several references were given.
func ShowEach[T any](ctx context.Context, a *App, o Output, refs []string, get func(context.Context, string) (T, error),
	describe func(T) (name string, fields []Field)) error {
	var items []T
	var failed Errors
	for _, ref := range refs {
		it, err := get(ctx, ref)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		items = append(items, it)
	}
	if len(refs) > 1 && o.Template == "" && !o.Quiet && o.Form != "table" {
		failed.add(PrintOne(a, o, items, "", nil))
		return failed.orNil()
	}
	for i, it := range items {
		name, fields := describe(it)
		if i > 0 && o.Template == "" && !o.Quiet {
			fmt.Fprintln(a.Out)
		}
		failed.add(PrintOne(a, o, it, name, fields))
	}
	return failed.orNil()
}

func (e *Errors) add(err error) {
	if err != nil {
		*e = append(*e, err)
	}
}
