package control

import (
	"os"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
)

func TestOpenPortWithoutOne(t *testing.T) {
	if _, err := OpenPort("dev.banger.none"); !errkind.Is(err, api.KindNotFound) {
		t.Fatalf("error is %v, want one of kind not-found", err)
	}
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
