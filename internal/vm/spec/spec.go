// Package spec knows what a VM's specification may be, how a request changes it, and what identity a new one gets. It does no I/O.
package spec

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
)

// Change returns spec with the changes of p. Disks only grow, and a variable to unset must be there; kinds invalid and not-found.
func Change(spec banger.Spec, p api.VMSet) (banger.Spec, error) {
	spec.VCPU, spec.MemMiB = cmp.Or(p.VCPU, spec.VCPU), cmp.Or(p.MemMiB, spec.MemMiB)
	for _, d := range []struct {
		what string
		size *int64
		want int64
	}{{"root disk", &spec.RootSize, p.RootSize}, {"work disk", &spec.WorkSize, p.DiskSize}} {
		if d.want != 0 && d.want < *d.size {
			return spec, errkind.WithHint(errkind.New(api.KindInvalid, "%d bytes are less than the %s has, %d", d.want, d.what, *d.size),
				"disks only grow; for a smaller one make another VM")
		}
		*d.size = cmp.Or(d.want, *d.size)
	}
	if p.NAT != nil {
		spec.NAT = *p.NAT
	}
	var err error
	if p.Group != nil {
		if err := CheckGroup(*p.Group); err != nil {
			return spec, err
		}
		spec.Group = *p.Group
	}
	if p.Publish != nil {
		if spec.Publish, err = Publish(*p.Publish); err != nil {
			return spec, err
		}
	}
	if spec.Env, err = mergeEnv(spec.Env, p.Env, p.UnsetEnv); err != nil {
		return spec, err
	}
	switch {
	case p.AutoStopMS == nil:
	case *p.AutoStopMS == -1:
		spec.AutoStop = nil
	default:
		spec.AutoStop = Duration(p.AutoStopMS)
	}
	return spec, nil
}

// mergeEnv returns env with the entries of set, NAME=VALUE, in place of those of the same name or at the end, and without the
// names in unset. A name to unset that is not there is an error.
func mergeEnv(env, set, unset []string) ([]string, error) {
	env = slices.Clone(env)
	find := func(name string) int {
		return slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
	}
	for _, name := range unset {
		i := find(name)
		if i < 0 {
			return nil, errkind.New(api.KindNotFound, "there is no variable %q to unset", name)
		}
		env = slices.Delete(env, i, i+1)
	}
	for _, e := range set {
		name, _, _ := strings.Cut(e, "=")
		if i := find(name); i >= 0 {
			env[i] = e
			continue
		}
		env = append(env, e)
	}
	return env, nil
}

// NeedsStart reports whether a running VM must be started anew to be as next says.
func NeedsStart(now, next banger.Spec) bool {
	now.AutoStop, next.AutoStop = nil, nil
	return !reflect.DeepEqual(now, next)
}

// CheckEnv checks that entries are NAME=VALUE.
func CheckEnv(entries []string) error {
	for _, env := range entries {
		if name, _, ok := strings.Cut(env, "="); !ok || name == "" || strings.ContainsRune(env, 0) {
			return errkind.WithHint(errkind.New(api.KindInvalid, "bad environment entry %q", env), "write it as NAME=VALUE")
		}
	}
	return nil
}

// CheckGroup checks the name of a group; none is good too.
func CheckGroup(group string) error {
	if group == "" {
		return nil
	}
	return banger.CheckName("group", group)
}

// Publish reads ports to publish.
func Publish(texts []string) ([]banger.Publish, error) {
	var out []banger.Publish
	for _, text := range texts {
		p, err := banger.ParsePublish(text)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// Duration is a duration of the wire; nil stays nil.
func Duration(ms *int64) *time.Duration {
	if ms == nil {
		return nil
	}
	d := time.Duration(*ms) * time.Millisecond
	return &d
}
