package ext4

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

func needE2fsprogs(t *testing.T) {
	t.Helper()
	for _, program := range []string{"mke2fs", "e2fsck", "debugfs"} {
		if _, err := host.LookPath(program); err != nil {
			t.Skip(err)
		}
	}
}

// file is a tar entry with its content.
type file struct {
	tar.Header
	data string
}

func dir(name string) file {
	return file{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}
func reg(name, data string) file {
	return file{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, data}
}
func link(name, to string) file {
	return file{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}, ""}
}
func sym(name, to string) file {
	return file{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}, ""}
}
func (f file) owner(u, g int) file { f.Uid, f.Gid = u, g; return f }
func (f file) mode(m int64) file   { f.Mode = m; return f }

func (f file) xattr(name, value string) file {
	f.PAXRecords = maps.Clone(f.PAXRecords)
	if f.PAXRecords == nil {
		f.PAXRecords = map[string]string{}
	}
	f.PAXRecords[paxXattr+name] = value
	return f
}

func device(kind byte, name string, major, minor int64) file {
	return file{tar.Header{Typeflag: kind, Name: name, Mode: 0o660, Devmajor: major, Devminor: minor}, ""}
}

func pack(t *testing.T, files ...file) *bytes.Buffer {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		f.Size = int64(len(f.data))
		f.Format = tar.FormatPAX
		if f.ModTime.IsZero() {
			f.ModTime = time.Unix(1700000000, 0)
		}
		if err := w.WriteHeader(&f.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &buf
}

// build makes a file system of files, has e2fsck agree that it is one, and returns its path.
func build(t *testing.T, o Options, files ...file) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fs")
	if err := FromTar(t.Context(), pack(t, files...), path, o); err != nil {
		t.Fatal(err)
	}
	verify(t, path)
	return path
}

func verify(t *testing.T, path string) {
	t.Helper()
	if err := Check(t.Context(), path); err != nil {
		var exit *host.ExitError
		errors.As(err, &exit)
		t.Fatalf("%v\n%s", err, exit.Output)
	}
}

func debugfs(t *testing.T, path, command string) string {
	t.Helper()
	out, err := host.Output(t.Context(), host.Command{Argv: []string{"debugfs", "-R", command, path}, Env: []string{"TZ=UTC"}})
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// wantStat checks that debugfs's account of a file has all the words, whatever the space between them.
func wantStat(t *testing.T, path, name string, words ...string) {
	t.Helper()
	got := strings.Join(strings.Fields(debugfs(t, path, "stat "+name)), " ")
	for _, w := range words {
		if !strings.Contains(got, w) {
			t.Errorf("%s: want %q in %s", name, w, got)
		}
	}
}

var small = Options{Size: 64 << 20}

func TestEntries(t *testing.T) {
	needE2fsprogs(t)
	long := strings.Repeat("n", 255)
	deep := strings.Repeat("deep/", 100) + "leaf"
	target := strings.Repeat("t", 60)
	old := reg("dates/old", "")
	old.ModTime = time.Date(1960, 1, 2, 3, 4, 5, 0, time.UTC)
	late := reg("dates/late", "")
	late.ModTime = time.Date(2200, 1, 2, 3, 4, 5, 123456789, time.UTC)
	path := build(t, small,
		dir("./").mode(0o750).owner(3, 4),
		dir("./etc"), reg("./etc/passwd", "root:x:0:0\n").mode(0o4755).owner(70000, 80000),
		reg("empty", ""), reg("a/b/c/made-parents", "x"), reg(deep, "down"), reg(long, "long"), reg("/abs", "absolute"), reg("../../up", "up"),
		link("etc/passwd2", "./etc/passwd"), link("etc/passwd3", "etc/passwd2"),
		sym("short", "etc/passwd"), sym("long-link", target), sym("fast-link", target[1:]),
		device(tar.TypeChar, "null", 1, 3), device(tar.TypeBlock, "disk", 259, 70000),
		file{tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600}, ""},
		reg(".wh.gone", ""), reg("a/.wh..wh..opq", ""),
		old, late,
	)
	t.Run("attributes of the root and of files are kept", func(t *testing.T) {
		wantStat(t, path, "/", "Type: directory", "Mode: 0750", "User: 3 Group: 4")
		wantStat(t, path, "/etc/passwd", "Type: regular", "Mode: 04755", "User: 70000 Group: 80000", "Size: 11")
		wantStat(t, path, "/lost+found", "Inode: 11", "Mode: 0700")
	})
	t.Run("contents are kept, whatever the name", func(t *testing.T) {
		for name, want := range map[string]string{
			"/etc/passwd": "root:x:0:0\n", "/empty": "", "/a/b/c/made-parents": "x", "/" + deep: "down", "/" + long: "long",
			"/abs": "absolute", "/up": "up",
		} {
			if got := debugfs(t, path, "cat "+name); got != want {
				t.Errorf("%.20s: got %q, want %q", name, got, want)
			}
		}
	})
	t.Run("hard links share one inode", func(t *testing.T) {
		wantStat(t, path, "/etc/passwd3", "Links: 3", "Size: 11")
	})
	t.Run("symbolic links of every length", func(t *testing.T) {
		wantStat(t, path, "/short", `Fast link dest: "etc/passwd"`)
		wantStat(t, path, "/fast-link", `Fast link dest: "`+target[1:])
		wantStat(t, path, "/long-link", "Type: symlink", "Size: 60", "EXTENTS")
		if got := debugfs(t, path, "cat /long-link"); got != target {
			t.Errorf("got %q", got)
		}
	})
	t.Run("devices and pipes", func(t *testing.T) {
		wantStat(t, path, "/null", "Type: character special", "01:03")
		wantStat(t, path, "/disk", "Type: block special", "259:70000")
		wantStat(t, path, "/fifo", "Type: FIFO", "Mode: 0600")
	})
	t.Run("whiteouts are files like any other", func(t *testing.T) {
		wantStat(t, path, "/.wh.gone", "Type: regular")
		wantStat(t, path, "/a/.wh..wh..opq", "Type: regular")
	})
	t.Run("times before 1970 and after 2106, to the nanosecond", func(t *testing.T) {
		wantStat(t, path, "/dates/old", "mtime: 0xed318525:00000000 -- Sat Jan 2 03:04:05 1960")
		wantStat(t, path, "/dates/late", fmt.Sprintf("mtime: 0xb09f95a5:%08x -- Thu Jan 2 03:04:05 2200", 123456789<<2|2))
	})
}

func TestXattrs(t *testing.T) {
	needE2fsprogs(t)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw=ep
	acl := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x06\x00\xff\xff\xff\xff\x20\x00\x04\x00\xff\xff\xff\xff"
	path := build(t, small,
		reg("ping", "x").xattr("security.capability", capability),
		reg("big", "x").xattr("user.large", strings.Repeat("v", 3000)).xattr("user.b", "2").xattr("trusted.c", "3").xattr("user.odd", "123"),
		reg("acl", "x").xattr("system.posix_acl_access", acl).mode(0o664),
		dir("d").xattr("user.dir", "yes"),
	)
	t.Run("a small one is in the inode", func(t *testing.T) {
		wantStat(t, path, "/ping", "security.capability (20)", "Size: 1")
	})
	t.Run("large ones share a block", func(t *testing.T) {
		wantStat(t, path, "/big", "user.large (3000)", `user.b (1) = "2"`, `trusted.c (1) = "3"`, "Blockcount: 16")
	})
	t.Run("directories have them, too", func(t *testing.T) {
		wantStat(t, path, "/d", `user.dir (3) = "yes"`)
	})
	t.Run("an access control list is stored in ext4's form", func(t *testing.T) {
		wantStat(t, path, "/acl", "system.posix_acl_access (28) = 01 00 00 00 01 00 06 00 02 00 04 00 e8 03 00 00 04 00 04 00 10 00 06 00 20 00 04 00")
	})
	t.Run("one that ext4 cannot hold is refused", func(t *testing.T) {
		for _, f := range []file{
			reg("f", "").xattr("user.huge", strings.Repeat("v", 4096)), reg("f", "").xattr("odd", "v"),
			reg("f", "").xattr("system.posix_acl_access", "xx"),
		} {
			wantFailure(t, small, api.KindInvalid, f)
		}
	})
}

func TestReplacing(t *testing.T) {
	needE2fsprogs(t)
	path := build(t, small,
		reg("f", strings.Repeat("old", 5000)), reg("f", "new"),
		reg("kept", "same"), link("other", "kept"), reg("kept", "changed"),
		dir("d").mode(0o700), reg("d/inside", "x"), dir("d").mode(0o711).owner(5, 6),
		reg("to-link", "x"), sym("to-link", "f"),
		reg("self", "x"), link("self", "self"),
		dir("lost+found").mode(0o711), reg("lost+found/found", "x"),
	)
	t.Run("a later file wins, and an older name of the first one keeps its content", func(t *testing.T) {
		for name, want := range map[string]string{"/f": "new", "/kept": "changed", "/other": "same", "/self": "x", "/lost+found/found": "x"} {
			if got := debugfs(t, path, "cat "+name); got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		wantStat(t, path, "/other", "Links: 1")
		wantStat(t, path, "/to-link", `Fast link dest: "f"`)
	})
	t.Run("a directory keeps its files and gets the new attributes", func(t *testing.T) {
		wantStat(t, path, "/d", "Mode: 0711", "User: 5 Group: 6")
		wantStat(t, path, "/d/inside", "Type: regular")
		wantStat(t, path, "/lost+found", "Inode: 11", "Mode: 0711")
	})
}

func TestLayout(t *testing.T) {
	needE2fsprogs(t)
	t.Run("a file over several groups, around the backup of the superblock", func(t *testing.T) {
		size := int64(150 << 20)
		path := filepath.Join(t.TempDir(), "fs")
		b, err := Create(t.Context(), path, Options{Size: 400 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Abort()
		hdr := &tar.Header{Typeflag: tar.TypeReg, Name: "big", Size: size}
		want := rand.NewChaCha8([32]byte{1})
		if err := errors.Join(b.Add(t.Context(), hdr, io.LimitReader(want, size)), b.Close()); err != nil {
			t.Fatal(err)
		}
		verify(t, path)
		out := filepath.Join(t.TempDir(), "big")
		debugfs(t, path, "dump /big "+out)
		got, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		expect := make([]byte, size)
		rand.NewChaCha8([32]byte{1}).Read(expect)
		if !bytes.Equal(got, expect) {
			t.Error("the content came back changed")
		}
	})
	t.Run("a file in hundreds of pieces", func(t *testing.T) {
		var files []file
		for i := range 1600 {
			files = append(files, reg(fmt.Sprintf("f%04d", i), "x"))
		}
		for i := 0; i < 1600; i += 2 {
			files = append(files, reg(fmt.Sprintf("f%04d", i), ""))
		}
		data := make([]byte, 800*blockSize)
		rand.NewChaCha8([32]byte{2}).Read(data)
		path := build(t, small, append(files, reg("pieces", string(data)))...)
		if got := debugfs(t, path, "cat /pieces"); got != string(data) {
			t.Error("the content came back changed")
		}
		if got := debugfs(t, path, "extents /pieces"); strings.Count(got, "\n") < 700 {
			t.Errorf("the file is not in pieces:\n%s", got)
		}
	})
	t.Run("a directory of many blocks", func(t *testing.T) {
		var files []file
		for i := range 3000 {
			files = append(files, reg(fmt.Sprintf("many/%0*d", 1+i%200, i), ""))
		}
		path := build(t, small, files...)
		if got := strings.Count(debugfs(t, path, "ls -p /many"), "\n"); got < 3002 {
			t.Errorf("%d entries", got)
		}
	})
	t.Run("it is sparse, has inodes for its size, and what it takes to grow", func(t *testing.T) {
		path := build(t, Options{Size: 8 << 30, Label: "rootfs", UUID: "01234567-89ab-cdef-0123-456789abcdef"}, reg("f", "x"))
		i, err := ReadInfo(path)
		if err != nil {
			t.Fatal(err)
		}
		if i.Size != 8<<30 || i.BlockSize != 4096 || i.Inodes != 524288 || i.FreeInodes != 524288-12 || i.Label != "rootfs" || !i.Clean ||
			i.UUID != "01234567-89ab-cdef-0123-456789abcdef" || i.FreeBlocks < i.Blocks*95/100 {
			t.Errorf("got %+v", i)
		}
		features := strings.Join(i.Features, " ")
		if !strings.Contains(features, "resize_inode") || !strings.Contains(features, "has_journal") || strings.Contains(features, "sparse_super2") ||
			strings.Contains(features, "csum") {
			t.Errorf("features %s", features)
		}
		if n, err := host.Allocated(path); err != nil || n > 2<<20 {
			t.Errorf("it takes %d bytes, %v", n, err)
		}
	})
	t.Run("a read-only one says so, and has no journal", func(t *testing.T) {
		i, err := ReadInfo(build(t, Options{Size: 32 << 20, ReadOnly: true}, reg("f", "x")))
		if features := strings.Join(i.Features, " "); err != nil || !strings.Contains(features, "read-only") || strings.Contains(features, "has_journal") {
			t.Errorf("%s, %v", features, err)
		}
	})
	t.Run("an empty one has lost+found and nothing else", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "fs")
		if err := Empty(t.Context(), path, small); err != nil {
			t.Fatal(err)
		}
		verify(t, path)
		if got := strings.Count(debugfs(t, path, "ls -p /"), "\n"); got != 3 && got != 4 {
			t.Error(debugfs(t, path, "ls -p /"))
		}
	})
}

// TestRandomStreams has e2fsck judge what comes of streams in which entries of all sorts replace each other.
func TestRandomStreams(t *testing.T) {
	needE2fsprogs(t)
	for seed := range uint64(5) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		path := filepath.Join(t.TempDir(), "fs")
		b, err := Create(t.Context(), path, small)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Abort()
		added := 0
		for range 1500 {
			name := func() string { return fmt.Sprintf("d%d/e%d/f%d", rnd.IntN(4), rnd.IntN(4), rnd.IntN(30)) }
			f := []file{
				reg(name(), strings.Repeat("x", rnd.IntN(20000))), reg(name(), ""), link(name(), name()), sym(name(), name()),
				dir(filepath.Dir(name())), device(tar.TypeChar, name(), 4, 64), reg(name(), "y").xattr("user.x", strings.Repeat("v", rnd.IntN(200))),
			}[rnd.IntN(7)]
			f.Size = int64(len(f.data))
			switch err := b.add(t.Context(), &f.Header, strings.NewReader(f.data)); {
			case err == nil:
				added++
			case !errkind.Is(err, api.KindInvalid): // a link to what is not there
				t.Fatal(err)
			}
		}
		if err := b.Close(); err != nil || added < 1000 {
			t.Fatal(added, err)
		}
		verify(t, path)
	}
}

func BenchmarkFromTar(b *testing.B) {
	if _, err := host.LookPath("mke2fs"); err != nil {
		b.Skip(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	data := bytes.Repeat([]byte("0123456789abcdef"), 2000)
	for i := range 4000 {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%d/f%d", i%100, i), Size: int64(len(data))}); err != nil {
			b.Fatal(err)
		}
		w.Write(data)
	}
	w.Close()
	b.SetBytes(int64(buf.Len()))
	for b.Loop() {
		path := filepath.Join(b.TempDir(), "fs")
		if err := FromTar(b.Context(), bytes.NewReader(buf.Bytes()), path, Options{Size: 8 << 30}); err != nil {
			b.Fatal(err)
		}
		os.Remove(path)
	}
}
