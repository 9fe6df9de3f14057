package imagemgr

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/errkind"
)

// fakeStore is a Store in memory. used holds the ids of images that VMs use.
type fakeStore struct {
	mu     sync.Mutex
	images []banger.Image
	used   map[banger.ImageID]bool
	putErr error
}

func (s *fakeStore) index(match func(banger.Image) bool) int {
	return slices.IndexFunc(s.images, match)
}

func (s *fakeStore) PutImage(_ context.Context, img banger.Image) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.putErr != nil {
		return s.putErr
	}
	if s.index(func(i banger.Image) bool { return i.Name == img.Name || i.ID == img.ID }) >= 0 {
		return errkind.New(api.KindExists, "name %q is taken", img.Name)
	}
	s.images = append(s.images, img)
	return nil
}

func (s *fakeStore) GetImage(_ context.Context, ref string) (banger.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.index(func(i banger.Image) bool { return i.Name == ref || string(i.ID) == ref }); i >= 0 {
		return s.images[i], nil
	}
	return banger.Image{}, errkind.New(api.KindNotFound, "no image %q", ref)
}

func (s *fakeStore) ListImages(context.Context) ([]banger.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.images), nil
}

func (s *fakeStore) UpdateImage(_ context.Context, id banger.ImageID, change func(*banger.Image) error) (banger.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.index(func(i banger.Image) bool { return i.ID == id })
	if i < 0 {
		return banger.Image{}, errkind.New(api.KindNotFound, "no image %q", id)
	}
	img := s.images[i]
	if err := change(&img); err != nil {
		return banger.Image{}, err
	}
	s.images[i] = img
	return img, nil
}

func (s *fakeStore) DeleteImage(_ context.Context, id banger.ImageID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used[id] {
		return errkind.New(api.KindPrecondition, "image %q is in use", id)
	}
	s.images = slices.DeleteFunc(s.images, func(i banger.Image) bool { return i.ID == id })
	return nil
}

type fakeKernels struct{}

func (fakeKernels) Get(_ context.Context, ref string) (banger.Kernel, error) {
	if ref != "cloud" {
		return banger.Kernel{}, errkind.New(api.KindNotFound, "no kernel %q", ref)
	}
	return banger.Kernel{ID: "1", Name: "cloud"}, nil
}

// fileStore is a Store whose rows are files, so that another process finds them.
type fileStore struct {
	fakeStore
	dir string
}

func (s *fileStore) ListImages(context.Context) ([]banger.Image, error) {
	files, err := filepath.Glob(filepath.Join(s.dir, "*"))
	if err != nil {
		return nil, err
	}
	var all []banger.Image
	for _, f := range files {
		var img banger.Image
		b, err := os.ReadFile(f)
		if err == nil {
			err = json.Unmarshal(b, &img)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, img)
	}
	return all, nil
}

func (s *fileStore) GetImage(ctx context.Context, ref string) (banger.Image, error) {
	all, err := s.ListImages(ctx)
	if err != nil {
		return banger.Image{}, err
	}
	s.mu.Lock()
	s.images = all
	s.mu.Unlock()
	return s.fakeStore.GetImage(ctx, ref)
}

func (s *fileStore) PutImage(_ context.Context, img banger.Image) error {
	b, err := json.Marshal(img)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, string(img.ID)), b, 0o600)
}

func (s *fileStore) DeleteImage(_ context.Context, id banger.ImageID) error {
	return os.Remove(filepath.Join(s.dir, string(id)))
}
