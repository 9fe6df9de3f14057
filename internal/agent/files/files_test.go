package files

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api/guestapi"
)

func in(t *testing.T, p guestapi.TarIn, entries ...tar.Header) error {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		body := "content of " + h.Name
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(body))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			w.Write([]byte(body))
		}
	}
	w.Close()
	p.NumericOwner = true
	x, err := newExtractor(p)
	if err != nil {
		return err
	}
	defer x.close()
	return x.extract(&b)
}

func file(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o640, Uid: os.Getuid(), Gid: os.Getgid()}
}

func TestExtract(t *testing.T) {
	t.Run("what is packed is unpacked again, under another name where one is asked for", func(t *testing.T) {
		src, dst := t.TempDir(), t.TempDir()
		top := filepath.Join(src, "top")
		if err := os.MkdirAll(filepath.Join(top, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(top, "sub", "a b\n"), []byte("x\x00y"), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("sub/a b\n", filepath.Join(top, "link")); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := pack(&b, top); err != nil {
			t.Fatal(err)
		}
		x, err := newExtractor(guestapi.TarIn{Path: dst, Rename: "new", NumericOwner: true})
		if err != nil {
			t.Fatal(err)
		}
		defer x.close()
		if err := x.extract(&b); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dst, "new", "link"))
		if err != nil || string(got) != "x\x00y" {
			t.Fatalf("%q %v", got, err)
		}
		if st, err := os.Stat(filepath.Join(dst, "new", "sub", "a b\n")); err != nil || st.Mode().Perm() != 0o750 {
			t.Fatalf("%v %v", st, err)
		}
	})
	t.Run("names that lead out of the target are refused, also through links", func(t *testing.T) {
		outside := t.TempDir()
		for what, entries := range map[string][]tar.Header{
			"an absolute name":        {file("/etc/x")},
			"a name with ..":          {file("a/../../x")},
			"a link to a parent":      {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: ".."}, file("l/x")},
			"an absolute link":        {{Typeflag: tar.TypeSymlink, Name: "l", Linkname: outside}, file("l/x")},
			"a hard link to a parent": {{Typeflag: tar.TypeLink, Name: "l", Linkname: "../x"}},
			"a device node":           {{Typeflag: tar.TypeChar, Name: "d", Devmajor: 1, Devminor: 3}},
		} {
			dst := filepath.Join(t.TempDir(), "in")
			if err := in(t, guestapi.TarIn{Path: dst}, entries...); err == nil {
				t.Errorf("%s was unpacked", what)
			}
			if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
				t.Errorf("%s left %v outside", what, left)
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(dst), "x")); err == nil {
				t.Errorf("%s left a file outside", what)
			}
		}
	})
	t.Run("a bad name for the copy is refused", func(t *testing.T) {
		if err := in(t, guestapi.TarIn{Path: t.TempDir(), Rename: "../x"}); err == nil || !strings.Contains(err.Error(), "bad name") {
			t.Fatalf("got %v", err)
		}
	})
}
