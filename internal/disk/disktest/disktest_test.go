package disktest_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/banger-vm/banger/internal/disk"
	"github.com/banger-vm/banger/internal/disk/disktest"
	"github.com/banger-vm/banger/internal/disk/sparse"
)

// wrong is a cloner with faults.
type wrong struct {
	disk.Cloner
	create   func(ctx context.Context, v disk.Volume) error
	activate func(ctx context.Context, v disk.Volume) (disk.Attachment, error)
	remove   func(ctx context.Context, v disk.Volume) error
}

func (w wrong) Create(ctx context.Context, v disk.Volume) error {
	if w.create != nil {
		return w.create(ctx, v)
	}
	return w.Cloner.Create(ctx, v)
}

func (w wrong) Activate(ctx context.Context, v disk.Volume) (disk.Attachment, error) {
	if w.activate != nil {
		return w.activate(ctx, v)
	}
	return w.Cloner.Activate(ctx, v)
}

func (w wrong) Remove(ctx context.Context, v disk.Volume) error {
	if w.remove != nil {
		return w.remove(ctx, v)
	}
	return w.Cloner.Remove(ctx, v)
}

// wrongs maps each check to a cloner that it must catch.
func wrongs() map[string]disk.Cloner {
	good := sparse.New()
	raw := func(v disk.Volume) string { return v.Path + ".raw" }
	unsized := wrong{Cloner: good, create: func(ctx context.Context, v disk.Volume) error {
		st, err := os.Stat(v.Base)
		if err != nil {
			return err
		}
		v.Size = st.Size()
		return good.Create(ctx, v)
	}}
	linked := wrong{Cloner: good, create: func(_ context.Context, v disk.Volume) error {
		err := os.Chmod(v.Base, 0o600)
		if _, gone := os.Lstat(raw(v)); gone != nil {
			err = errors.Join(err, os.Link(v.Base, raw(v)))
		}
		return errors.Join(err, os.Truncate(raw(v), v.Size))
	}}
	inPlace := wrong{Cloner: good, create: func(_ context.Context, v disk.Volume) error {
		b, err := os.ReadFile(v.Base)
		return errors.Join(err, os.WriteFile(raw(v), b, 0o600), os.Truncate(raw(v), v.Size))
	}}
	return map[string]disk.Cloner{
		"a clone reads as its base and zeros after it": wrong{Cloner: good, create: func(_ context.Context, v disk.Volume) error {
			return errors.Join(os.WriteFile(raw(v), nil, 0o600), os.Truncate(raw(v), v.Size))
		}},
		"a clone takes less than its base's data, or at least keeps the holes": wrong{Cloner: good, create: inPlace.create},
		"writing a clone changes neither base nor another clone":               linked,
		"every step may be repeated": wrong{Cloner: good, remove: func(_ context.Context, v disk.Volume) error {
			return os.Remove(raw(v))
		}},
		"a repeated create keeps what was written": inPlace,
		"a larger size extends the clone at activate, and a smaller one does not shrink it": wrong{Cloner: good,
			activate: func(_ context.Context, v disk.Volume) (disk.Attachment, error) {
				return disk.Attachment{Path: raw(v), Format: "raw"}, os.Truncate(raw(v), v.Size)
			}},
		"a size below the base's is refused and leaves nothing": unsized,
		"a size that is no multiple of a sector is refused":     unsized,
		"a missing base is not found and leaves nothing": wrong{Cloner: good, create: func(_ context.Context, v disk.Volume) error {
			return errors.Join(os.WriteFile(raw(v), nil, 0o600), os.Truncate(raw(v), v.Size))
		}},
		"activating a removed clone is not found": wrong{Cloner: good,
			activate: func(_ context.Context, v disk.Volume) (disk.Attachment, error) {
				return disk.Attachment{Path: raw(v), Format: "raw"}, nil
			}},
		"a missing directory is an error that leaves nothing": wrong{Cloner: good, create: func(ctx context.Context, v disk.Volume) error {
			return errors.Join(os.MkdirAll(v.Path, 0o700), good.Create(ctx, v), errors.New("late"))
		}},
		"a canceled create is whole or nothing": wrong{Cloner: good, create: func(ctx context.Context, v disk.Volume) error {
			return errors.Join(os.WriteFile(raw(v), nil, 0o600), ctx.Err())
		}},
		"the leftover of a crash is replaced by create and deleted by remove": wrong{Cloner: good,
			remove: func(_ context.Context, v disk.Volume) error { return os.RemoveAll(raw(v)) }},
		"a full file system is an error that leaves nothing, and the next create works": inPlace,
		"remove leaves nothing and keeps the base": wrong{Cloner: good,
			remove: func(ctx context.Context, v disk.Volume) error {
				return errors.Join(good.Remove(ctx, v), os.Remove(v.Base))
			}},
	}
}

func TestEveryCheckCatchesAWrongCloner(t *testing.T) {
	bad := wrongs()
	for _, check := range disktest.Checks() {
		t.Run(check.Name, func(t *testing.T) {
			cloner, ok := bad[check.Name]
			if !ok {
				t.Fatal("no wrong cloner for this check")
			}
			env := disktest.Env{Cloner: cloner, Dir: t.TempDir(), Full: disktest.FullDir(t), Disk: disktest.RawDisk{}}
			err := check.Run(t.Context(), env)
			switch {
			case errors.Is(err, disktest.ErrSkip):
				t.Skip(err)
			case err == nil:
				t.Error("the check passes a wrong cloner")
			default:
				t.Log(err)
			}
		})
	}
}
