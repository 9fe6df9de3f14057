package host

import (
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMentionedBelow(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// A shell that waits for a writer, with the names as its arguments.
	p, err := Detached{Argv: []string{
		"sh", "-c", `read x <"$0"`, fifo, dir + "/one/sock", "path=" + dir + "/two,x", dir + "/one/pid", dir, dir + "x/three/y",
	}, Dir: "/"}.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Wait() //nolint:errcheck // it is killed
	defer p.Kill() //nolint:errcheck // the test ends with it, or has failed already
	got, err := MentionedBelow(dir + "/")
	if err != nil || !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("got %q, %v", got, err)
	}
}
