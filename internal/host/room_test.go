package host_test

import (
	"testing"

	"github.com/banger-vm/banger/internal/host"
)

func TestRoomOf(t *testing.T) {
	r, err := host.RoomOf(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if r.CPUs < 1 || r.MemAvailable < 1<<20 || r.MemAvailable > r.MemTotal || r.DiskTotal < 1<<20 || r.DiskFree > r.DiskTotal {
		t.Errorf("got %+v", r)
	}
	if _, err := host.RoomOf("/nowhere"); err == nil {
		t.Error("a directory that is not there has room")
	}
}
