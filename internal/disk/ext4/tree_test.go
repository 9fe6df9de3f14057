package ext4

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

// white and opaque are what a layer has of these in a test.
func white(name string) file  { return file{tar.Header{Typeflag: 'w', Name: name}, ""} }
func opaque(name string) file { return file{tar.Header{Typeflag: 'o', Name: name}, ""} }

// layered makes a file system of layers, and returns the names of all that is in it, sorted as debugfs's rdump leaves them.
func layered(t *testing.T, layers ...[]file) (path string, names []string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "fs")
	b, err := Create(t.Context(), path, small)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Abort()
	for _, files := range layers {
		b.BeginLayer()
		for _, f := range files {
			f.Size = int64(len(f.data))
			switch f.Typeflag {
			case 'w':
				err = b.Whiteout(f.Name)
			case 'o':
				err = b.Opaque(f.Name)
			default:
				err = b.Add(t.Context(), &f.Header, strings.NewReader(f.data))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	verify(t, path)
	return path, list(t, path)
}

// list returns the paths of all that is in the file system but lost+found.
func list(t *testing.T, path string) []string {
	t.Helper()
	out := t.TempDir()
	if _, err := host.Output(t.Context(), host.Command{Argv: []string{"debugfs", "-R", "rdump / " + out, path}}); err != nil {
		t.Fatal(err)
	}
	var names []string
	err := filepath.WalkDir(out, func(p string, _ os.DirEntry, err error) error {
		if rel := strings.TrimPrefix(p, out+"/"); p != out && rel != "lost+found" {
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestLayers(t *testing.T) {
	needE2fsprogs(t)
	old := []file{dir("d"), reg("d/a", "a"), dir("d/sub"), reg("d/sub/b", "b"), reg("f", "f")}
	for _, c := range []struct {
		name, want string
		upper      []file
	}{
		{"a whiteout removes a file", "d d/a d/sub d/sub/b", []file{white("f")}},
		{"and a directory with what is in it", "f", []file{white("d")}},
		{"but nothing of its own layer, whichever comes first", "d d/n f", []file{reg("d/n", ""), white("d")}},
		{"as above, the other way round", "d d/n f", []file{white("d"), reg("d/n", "")}},
		{"a whiteout of what is not there", "d d/a d/sub d/sub/b f", []file{white("x/y"), white("z"), white("f/x")}},
		{"an opaque directory hides what was below it", "d d/n f", []file{reg("d/n", ""), opaque("d")}},
		{"an opaque root", "n", []file{opaque("/"), reg("n", "")}},
		{"a directory gives way to a file of a later layer", "d f", []file{reg("d", "")}},
		{"and a file to a directory", "d d/a d/sub d/sub/b f f/n", []file{dir("f"), reg("f/n", "")}},
		{"or to what is below it", "d d/a d/sub d/sub/b f f/n", []file{reg("f/n", "")}},
		{"lost+found stays", "d d/a d/sub d/sub/b f", []file{white("lost+found")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, names := layered(t, old, c.upper)
			if got := strings.Join(names, " "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			wantStat(t, path, "lost+found", "Type: directory")
		})
	}
	t.Run("of two hard links the one that is not replaced stays", func(t *testing.T) {
		path, names := layered(t, []file{reg("one", "old"), link("two", "one")}, []file{reg("one", "new")}, []file{white("one")})
		if got := strings.Join(names, " "); got != "two" {
			t.Errorf("got %s", got)
		}
		if got := debugfs(t, path, "cat two"); got != "old" {
			t.Errorf("it holds %q", got)
		}
		wantStat(t, path, "two", "Links: 1")
	})
	t.Run("names lead over symbolic links, and not out", func(t *testing.T) {
		_, names := layered(t, []file{dir("usr"), dir("usr/lib"), sym("lib", "usr/lib"), sym("abs", "/usr/lib"), sym("up", "../../usr")},
			[]file{reg("lib/a", ""), reg("abs/b", ""), link("up/c", "abs/a"), reg("up/../../../../top", "")})
		if got := strings.Join(names, " "); got != "abs lib top up usr usr/c usr/lib usr/lib/a usr/lib/b" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("a directory of the same layer stands in the way", func(t *testing.T) {
		wantFailure(t, small, api.KindInvalid, dir("d"), reg("d/f", ""), reg("d", ""))
	})
}

func TestCopyFrom(t *testing.T) {
	needE2fsprogs(t)
	dirName := t.TempDir()
	open := func(name string) *Builder {
		b, err := Create(t.Context(), filepath.Join(dirName, name), small)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Abort)
		return b
	}
	from, to := open("from"), open("to")
	data := strings.Repeat("x", 100_000) + strings.Repeat("\x00", 300_000) + "end"
	f := reg("f", data).owner(7, 8).mode(0o4711)
	f.Size = int64(len(data))
	if err := from.Add(t.Context(), &f.Header, strings.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	l := link("sub/copy", "f")
	if err := to.CopyFrom(t.Context(), &l.Header, from, "f"); err != nil {
		t.Fatal(err)
	}
	if err := to.CopyFrom(t.Context(), &l.Header, from, "missing"); !errkind.Is(err, api.KindInvalid) {
		t.Errorf("of a file that is not there: %v", err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dirName, "to")
	verify(t, path)
	if got := debugfs(t, path, "cat sub/copy"); got != data {
		t.Errorf("the copy has %d bytes, and differs", len(got))
	}
	wantStat(t, path, "sub/copy", "Mode: 04711", "User: 7 Group: 8")
}

func TestHoles(t *testing.T) {
	needE2fsprogs(t)
	t.Run("zeros take no room", func(t *testing.T) {
		data := "begin" + strings.Repeat("\x00", 8<<20) + "middle" + strings.Repeat("\x00", 3<<20)
		path := build(t, small, reg("f", data), reg("zeros", strings.Repeat("\x00", 30<<20)))
		if got := debugfs(t, path, "cat f"); got != data {
			t.Errorf("it reads as %d bytes, and differs", len(got))
		}
		wantStat(t, path, "zeros", "Size: 31457280", "Blockcount: 0")
	})
	t.Run("a file in more pieces than an inode has room for", func(t *testing.T) {
		var data strings.Builder
		for range 400 {
			data.WriteString("x" + strings.Repeat("\x00", 2*minHole-1))
		}
		path := build(t, Options{Size: 256 << 20}, reg("f", data.String()))
		if got := debugfs(t, path, "cat f"); got != data.String() {
			t.Errorf("it reads as %d bytes, and differs", len(got))
		}
	})
	t.Run("a hole larger than the file system is refused at once", func(t *testing.T) {
		b, err := Create(t.Context(), filepath.Join(t.TempDir(), "fs"), small)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Abort()
		huge := &tar.Header{Typeflag: tar.TypeReg, Name: "bomb", Size: 1 << 60}
		if err := b.Add(t.Context(), huge, io.LimitReader(zeroReader{}, 1<<60)); !errkind.Is(err, api.KindInvalid) {
			t.Errorf("got %v", err)
		}
	})
}
