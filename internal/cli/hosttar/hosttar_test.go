package hosttar_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/hosttar"
	"github.com/banger-vm/banger/internal/errkind"
)

func build(t *testing.T, headers ...tar.Header) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, 4
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			w.Write([]byte("evil"))
		}
	}
	w.Close()
	return &b
}

func TestRoundTrip(t *testing.T) {
	src := filepath.Join(t.TempDir(), "src")
	when := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := errors.Join(os.MkdirAll(filepath.Join(src, "sub", "empty"), 0o755), os.WriteFile(filepath.Join(src, "run"), []byte("#!"), 0o700),
		os.WriteFile(filepath.Join(src, "sub", "a\nb"), bytes.Repeat([]byte("x"), 1<<20), 0o400), os.Symlink("../run", filepath.Join(src, "sub", "l")),
		os.Chtimes(filepath.Join(src, "run"), when, when), os.Chmod(filepath.Join(src, "sub"), 0o555), os.Chtimes(filepath.Join(src, "sub"), when, when)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(src, "sub"), 0o755) })
	for _, top := range []string{"src", ""} {
		var b bytes.Buffer
		if err := hosttar.Pack(&b, src, top); err != nil {
			t.Fatal(err)
		}
		if top == "" {
			continue // such a tar has several top entries: it is for the guest
		}
		dst := t.TempDir()
		if err := hosttar.Unpack(&b, dst, "dst"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(filepath.Join(dst, "dst", "sub"), 0o755) })
		for name, mode := range map[string]fs.FileMode{"run": 0o700, "sub": fs.ModeDir | 0o555, "sub/a\nb": 0o400, "sub/empty": fs.ModeDir | 0o755} {
			st, err := os.Lstat(filepath.Join(dst, "dst", name))
			if err != nil || st.Mode() != mode {
				t.Errorf("%q: %v, %v", name, st, err)
			}
			if (name == "run" || name == "sub") && !st.ModTime().Equal(when) {
				t.Errorf("%q: time %s", name, st.ModTime())
			}
		}
		if l, err := os.Readlink(filepath.Join(dst, "dst", "sub", "l")); err != nil || l != "../run" {
			t.Errorf("%q, %v", l, err)
		}
	}
}

func TestHostileTars(t *testing.T) {
	for name, c := range map[string]struct {
		headers []tar.Header
		kind    api.ErrorKind // empty: any error
	}{
		"dot dot":                    {[]tar.Header{{Name: "top/../../evil"}}, api.KindInvalid},
		"another top":                {[]tar.Header{{Name: "top/a"}, {Name: "other/evil"}}, api.KindInvalid},
		"through an absolute link":   {[]tar.Header{{Name: "top/", Typeflag: tar.TypeDir}, {Name: "top/l", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, {Name: "top/l/evil"}}, api.KindInvalid},
		"through a climbing link":    {[]tar.Header{{Name: "top/l", Typeflag: tar.TypeSymlink, Linkname: "../.."}, {Name: "top/l/evil"}}, api.KindInvalid},
		"a directory through a link": {[]tar.Header{{Name: "top/l", Typeflag: tar.TypeSymlink, Linkname: "../.."}, {Name: "top/l/d/", Typeflag: tar.TypeDir}}, api.KindInvalid},
		"a hard link to outside":     {[]tar.Header{{Name: "top/h", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"}}, api.KindInvalid},
		"a hard link through a link": {[]tar.Header{{Name: "top/l", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, {Name: "top/h", Typeflag: tar.TypeLink, Linkname: "top/l/passwd"}}, ""},
		"a device":                   {[]tar.Header{{Name: "top/d", Typeflag: tar.TypeChar}}, api.KindInvalid},
		"the top as a symbolic link": {[]tar.Header{{Name: "top", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, {Name: "top/evil"}}, ""},
		"a file over a directory":    {[]tar.Header{{Name: "top/d/x"}, {Name: "top/d"}}, api.KindExists},
		"not a tar":                  {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			outside := t.TempDir()
			dst := filepath.Join(outside, "a", "dst")
			if err := os.MkdirAll(dst, 0o755); err != nil {
				t.Fatal(err)
			}
			data := build(t, c.headers...)
			if c.headers == nil {
				data = bytes.NewBuffer(bytes.Repeat([]byte("no tar "), 200))
			}
			err := hosttar.Unpack(data, dst, "top")
			if err == nil || c.kind != "" && errkind.Of(err) != c.kind {
				t.Errorf("got %v", err)
			}
			filepath.WalkDir(outside, func(p string, d fs.DirEntry, _ error) error {
				if d.Name() == "evil" {
					t.Errorf("%s was written", p)
				}
				return nil
			})
			if _, err := os.Lstat("/tmp/evil"); err == nil {
				t.Error("/tmp/evil was written")
			}
		})
	}
}

func TestFilesAreReplacedAndNotWrittenThrough(t *testing.T) {
	dst, outside := t.TempDir(), filepath.Join(t.TempDir(), "precious")
	if err := errors.Join(os.WriteFile(outside, []byte("mine"), 0o600), os.Symlink(outside, filepath.Join(dst, "f")), os.WriteFile(filepath.Join(dst, "keep"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := hosttar.Unpack(build(t, tar.Header{Name: "top/f", Mode: 0o4755}), dst, ""); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
	if st, err := os.Lstat(filepath.Join(dst, "f")); err != nil || st.Mode() != 0o755 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if _, err := os.Stat(filepath.Join(dst, "keep")); err != nil {
		t.Error(err)
	}
}

func TestPackRefusesPipes(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "p"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := hosttar.Pack(&bytes.Buffer{}, dir, "x"); errkind.Of(err) != api.KindInvalid {
		t.Errorf("got %v", err)
	}
}
