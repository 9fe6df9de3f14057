package sparse_test

import (
	"testing"

	"github.com/banger-vm/banger/internal/disk/disktest"
	"github.com/banger-vm/banger/internal/disk/sparse"
)

func TestCloner(t *testing.T) {
	disktest.Run(t, func(t *testing.T) disktest.Env {
		return disktest.Env{Cloner: sparse.New(), Dir: t.TempDir(), Full: disktest.FullDir(t), Disk: disktest.RawDisk{}}
	})
}
