package source

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

// pack is the objects that go along, on disk, with their index.
type pack struct {
	name string // without suffix, absolute
	history
}

// emptyBlob is the id of an empty file.
const emptyBlob = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"

// Pack makes the pack of the objects that go along. It may be called while the VM still boots; [Source.Stream] does it
// otherwise, while it sends the files.
//
// The pack is made here because hashing is dear in an emulated guest; a pack with its index needs none there. Deltas that
// the repository has are reused. What is left is compressed fast rather than small: the way to the guest is a memory copy.
func (s *Source) Pack(ctx context.Context) error {
	if s.pack != nil {
		return nil
	}
	h, err := s.readHistory(ctx)
	if err != nil {
		return err
	}
	// The format of git-pack-objects(1) --revs; --shallow as git-upload-pack sends it for a shallow clone.
	var in strings.Builder
	for _, id := range h.shallow {
		fmt.Fprintf(&in, "--shallow %s\n", id)
	}
	if s.intent {
		h.extra = append(h.extra, emptyBlob)
	}
	for _, id := range append([]string{s.plan.Commit, s.plan.BaseTree, s.indexTree}, h.extra...) {
		fmt.Fprintln(&in, id)
	}
	var id strings.Builder
	git := s.git.Set("pack.compression=1", "core.bigFileThreshold=16m", "pack.writeReverseIndex=false")
	err = git.Run(ctx, strings.NewReader(in.String()), &id,
		"pack-objects", "--revs", "-q", "--delta-base-offset", "--window=4", filepath.Join(s.tmp, "pack"))
	if err != nil {
		if s.repo.partial {
			err = errkind.WithHint(errkind.Wrap(api.KindPrecondition, err),
				"this is a partial clone, and some of its objects are not here; `git fetch --refetch --no-filter` gets them")
		}
		return fmt.Errorf("pack objects: %w", err)
	}
	s.pack = &pack{name: filepath.Join(s.tmp, "pack-"+strings.TrimSpace(id.String())), history: *h}
	return nil
}
