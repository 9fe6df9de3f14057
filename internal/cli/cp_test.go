package cli_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/cli/fakedaemon"
)

// guestFiles scripts vm.stat with the paths of directories (ending in a slash) and files.
func guestFiles(d *fakedaemon.Daemon, paths ...string) {
	d.On(api.MethodVMStat, func(c *fakedaemon.Call) {
		var p api.VMStat
		c.Decode(&p)
		for _, have := range paths {
			if strings.TrimSuffix(have, "/") == strings.TrimSuffix(p.Path, "/") {
				c.Reply(guestapi.Stat{Exists: true, Dir: strings.HasSuffix(have, "/")})
				return
			}
		}
		c.Reply(guestapi.Stat{})
	})
}

// names lists a tar's entries; symbolic links with where they lead.
func names(t *testing.T, data []byte) []string {
	t.Helper()
	var out []string
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		name := h.Name
		if h.Linkname != "" {
			name += " -> " + h.Linkname
		}
		out = append(out, name)
	}
}

func TestCopyIn(t *testing.T) {
	d := fakedaemon.Start(t)
	guestFiles(d, "/", "/srv/", "/root/", "/etc/motd")
	var sent []byte
	d.On(api.MethodVMCopyIn, func(c *fakedaemon.Call) { c.Reply(nil); sent, _ = c.Stdin(nil); c.Exit(frame.ExitStatus{}) })
	src := t.TempDir()
	site := filepath.Join(src, "site")
	if err := errors.Join(os.Mkdir(site, 0o755), os.WriteFile(filepath.Join(site, "a"), []byte("A"), 0o644),
		os.Symlink("a", filepath.Join(site, "link"))); err != nil {
		t.Fatal(err)
	}
	whole, contents := []string{"site/", "site/a", "site/link -> a"}, []string{"a", "link -> a"}
	for _, c := range []struct {
		src, dst string
		want     guestapi.TarIn
		names    []string
	}{
		{site, "web:/srv", guestapi.TarIn{Path: "/srv"}, whole},
		{site, "web:/srv/", guestapi.TarIn{Path: "/srv"}, whole},
		{site + "/", "web:/srv", guestapi.TarIn{Path: "/srv"}, whole},
		{site, "web:/srv/new", guestapi.TarIn{Path: "/srv", Rename: "new"}, whole},
		{site + "/.", "web:/srv", guestapi.TarIn{Path: "/srv"}, contents},
		{site + "/.", "web:/srv/new", guestapi.TarIn{Path: "/srv/new"}, contents},
		{site + "/a", "web:", guestapi.TarIn{Path: "/root"}, []string{"a"}},
		{site + "/a", "web:b", guestapi.TarIn{Path: "/root", Rename: "b"}, []string{"a"}},
		{site + "/a", "web:/etc/motd", guestapi.TarIn{Path: "/etc", Rename: "motd"}, []string{"a"}},
		{site + "/link", "web:/srv", guestapi.TarIn{Path: "/srv"}, []string{"link -> a"}},
	} {
		guestFiles(d, "/", "/srv/", "/root/", "/etc/", "/etc/motd")
		banger(t, d).ok("cp", c.src, c.dst)
		var got api.VMCopyIn
		d.Params(api.MethodVMCopyIn, &got)
		if diff := cmp.Diff(c.want, got.TarIn) + cmp.Diff(c.names, names(t, sent)); diff != "" {
			t.Errorf("%s to %s: %s", c.src, c.dst, diff)
		}
	}
	t.Run("owners", func(t *testing.T) {
		var got api.VMCopyIn
		banger(t, d).ok("vm", "cp", "--archive", site, "web:/srv")
		if d.Params(api.MethodVMCopyIn, &got); !got.NumericOwner {
			t.Errorf("got %+v", got)
		}
		banger(t, d).ok("vm", "cp", "--user", "www", site, "web:/srv")
		if d.Params(api.MethodVMCopyIn, &got); got.User != "www" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a tar on standard input", func(t *testing.T) {
		banger(t, d).stdin("tar bytes").ok("cp", "-", "web:/srv")
		if string(sent) != "tar bytes" {
			t.Errorf("got %q", sent)
		}
		banger(t, d).fails(64, "web:/etc/motd is not a directory", "cp", "-", "web:/etc/motd")
	})
	for _, c := range []struct {
		src, dst, want string
		code           int
	}{
		{src + "/nope", "web:/srv", "no such file", 66},
		{site, "web:/etc/motd", "copy a directory over the file", 64},
		{site + "/a", "web:/no/where", "there is no directory", 66},
		{site + "/a", "web:/srv/new/", "there is no directory web:/srv/new/", 66},
		{site + "/.", "web:/no/where", "there is no directory", 66},
	} {
		banger(t, d).fails(c.code, c.want, "cp", c.src, c.dst)
	}
	t.Run("a local name with a colon has a slash before it", func(t *testing.T) {
		t.Chdir(src)
		if err := os.WriteFile("a:b", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		banger(t, d).ok("cp", "./a:b", "web:/srv")
	})
	t.Run("a socket is refused by name", func(t *testing.T) {
		banger(t, d).fails(64, "bangerd.sock: a socket cannot be copied", "cp", filepath.Dir(d.Socket), "web:/srv")
	})
}

func TestCopyOut(t *testing.T) {
	var etc bytes.Buffer
	tw := tar.NewWriter(&etc)
	for _, h := range []tar.Header{{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "etc/a", Mode: 0o640, Size: 1}, {Name: "etc/l", Typeflag: tar.TypeSymlink, Linkname: "/etc/a"}} {
		tw.WriteHeader(&h)
		if h.Size > 0 {
			tw.Write([]byte("A"))
		}
	}
	tw.Close()
	d := fakedaemon.Start(t)
	guestFiles(d, "/etc/", "/etc/a")
	send := func(data []byte, st frame.ExitStatus) {
		d.On(api.MethodVMCopyOut, func(c *fakedaemon.Call) { c.Reply(nil); c.Frames().Write(frame.Stdout, data); c.Exit(st) })
	}
	send(etc.Bytes(), frame.ExitStatus{})
	for _, c := range []struct{ src, dst, want string }{
		{"web:/etc", "into", "into/etc/a"},
		{"web:/etc/", "into", "into/etc/a"},
		{"web:/etc", "new", "new/a"},
		{"web:/etc", "new/", "new/a"},
		{"web:/etc/.", "into", "into/a"},
		{"web:/etc/.", "new", "new/a"},
	} {
		t.Chdir(t.TempDir())
		if err := os.Mkdir("into", 0o700); err != nil {
			t.Fatal(err)
		}
		banger(t, d).ok("cp", c.src, c.dst)
		if b, err := os.ReadFile(c.want); err != nil || string(b) != "A" {
			t.Errorf("%s to %s: %v", c.src, c.dst, err)
		}
		if l, err := os.Readlink(strings.TrimSuffix(c.want, "a") + "l"); err != nil || l != "/etc/a" {
			t.Errorf("%s to %s: link %q, %v", c.src, c.dst, l, err)
		}
	}
	if got := banger(t, d).ok("cp", "web:/etc", "-").stdout; got != etc.String() {
		t.Errorf("got %d bytes", len(got))
	}
	t.Run("a file replaces a file, and one that a link of the user's leads to", func(t *testing.T) {
		var one bytes.Buffer
		tw := tar.NewWriter(&one)
		tw.WriteHeader(&tar.Header{Name: "a", Mode: 0o600, Size: 3})
		tw.Write([]byte("new"))
		tw.Close()
		send(one.Bytes(), frame.ExitStatus{})
		defer send(etc.Bytes(), frame.ExitStatus{})
		t.Chdir(t.TempDir())
		if err := errors.Join(os.WriteFile("old", []byte("old"), 0o600), os.Symlink("old", "link")); err != nil {
			t.Fatal(err)
		}
		for _, dst := range []string{"link", "old", "fresh"} {
			banger(t, d).ok("cp", "web:/etc/a", dst)
		}
		for _, name := range []string{"old", "fresh"} {
			if b, err := os.ReadFile(name); err != nil || string(b) != "new" {
				t.Errorf("%s: %q, %v", name, b, err)
			}
		}
		if l, err := os.Readlink("link"); err != nil || l != "old" {
			t.Errorf("%q, %v", l, err)
		}
	})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		src, dst, want string
		code           int
	}{
		{"web:/nope", ".", "there is nothing at web:/nope", 66},
		{"web:/etc/a/", ".", "web:/etc/a/ is not a directory", 64},
		{"web:/etc", file, "copy a directory over the file", 64},
		{"web:/etc/a", "/no/where/x", "there is no directory /no/where", 66},
		{"web:/etc/a", "/nowhere/", "there is no directory /nowhere/", 66},
	} {
		banger(t, d).fails(c.code, c.want, "cp", c.src, c.dst)
	}
	t.Run("a guest that fails in the middle is told", func(t *testing.T) {
		send(etc.Bytes(), frame.ExitStatus{Code: 1, Error: "read /etc/shadow: input/output error"})
		banger(t, d).fails(76, "input/output error", "cp", "web:/etc", t.TempDir())
	})
}
