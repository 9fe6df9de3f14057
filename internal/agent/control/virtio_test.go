package control

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

func TestOpenPortWithoutOne(t *testing.T) {
	if _, err := OpenPort("dev.banger.none"); !errkind.Is(err, api.KindNotFound) {
		t.Fatalf("error is %v, want one of kind not-found", err)
	}
}

func TestOpenPortWhoseNodeComesLater(t *testing.T) {
	class, dev := t.TempDir(), t.TempDir()
	if err := os.Mkdir(filepath.Join(class, "vport1p1"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(class, "vport1p1", "name"), []byte("dev.banger.test\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openPort(class, dev, "dev.banger.test"); !errkind.Is(err, api.KindNotFound) {
		t.Fatalf("without the node the error is %v, want one of kind not-found, for which the caller waits", err)
	}
	if err := os.WriteFile(filepath.Join(dev, "vport1p1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := openPort(class, dev, "dev.banger.test")
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
}

func TestHungUpPeer(t *testing.T) {
	// A pipe whose reader has gone says POLLERR, one whose writer has gone POLLHUP, as a port without a host does.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if hungUp(int(r.Fd())) {
		t.Error("a pipe with a writer is hung up")
	}
	w.Close()
	if !hungUp(int(r.Fd())) {
		t.Error("a pipe without a writer is not hung up")
	}
}
