package imagemgr

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/disk/ext4"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/opstate"
)

func pullManager(t *testing.T) *Manager {
	t.Helper()
	return New(Config{Dir: t.TempDir(), CacheDir: t.TempDir(), Store: &fakeStore{}, Kernels: fakeKernels{}, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
}

// layerOf is a layer with these entries.
func layerOf(t *testing.T, entries ...tar.Header) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		h.Mode |= 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(w, zeros{}, h.Size); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// layoutOf writes a layout with one image of these layers, and returns a reference to it.
func layoutOf(t *testing.T, layers ...v1.Layer) string {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir
}

func file(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 1} }

// names lists the files below / of an image's root file system, but what every image has.
func names(t *testing.T, rootfs string) []string {
	t.Helper()
	var found []string
	for line := range strings.Lines(debugfs(t, rootfs, "ls -p /")) {
		f := strings.Split(line, "/")
		if len(f) > 5 && !slices.Contains([]string{".", "..", "lost+found", "dev", "proc", "sys", "run", "tmp", "etc", "root"}, f[5]) {
			found = append(found, f[5])
		}
	}
	slices.Sort(found)
	return found
}

func TestLayers(t *testing.T) {
	dir := func(name string) tar.Header {
		return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}
	}
	for _, c := range []struct {
		name   string
		layers [][]tar.Header
		want   []string // below /
		inside map[string]bool
	}{
		{name: "a whiteout hides a file of a layer below, and none of its own", layers: [][]tar.Header{{file("a"), file("b")}, {file(".wh.a"), file("c"), file(".wh.c")}},
			want: []string{"b", "c"}},
		{name: "a whiteout hides a directory with what is in it", layers: [][]tar.Header{{file("d/x"), file("e")}, {file(".wh.d")}}, want: []string{"e"}},
		{name: "an opaque directory hides what layers below have in it, wherever the mark stands", layers: [][]tar.Header{
			{file("d/old"), file("d/sub/old")}, {dir("d"), file("d/new"), file("d/.wh..wh..opq"), file("d/late")}},
			want: []string{"d"}, inside: map[string]bool{"/d/old": false, "/d/sub": false, "/d/new": true, "/d/late": true}},
		{name: "a file takes the place of a directory, and the other way round", layers: [][]tar.Header{{file("d/x"), file("f")}, {file("d"), file("f/y")}},
			want: []string{"d", "f"}, inside: map[string]bool{"/d/x": false, "/f/y": true}},
		{name: "a path through a symbolic link leads to where that leads", layers: [][]tar.Header{
			{dir("usr/lib"), {Typeflag: tar.TypeSymlink, Name: "lib", Linkname: "usr/lib"}, {Typeflag: tar.TypeSymlink, Name: "out", Linkname: "../../usr"}}, {file("lib/x"), file("out/lib/y")}},
			want: []string{"lib", "out", "usr"}, inside: map[string]bool{"/usr/lib/x": true, "/usr/lib/y": true}},
		{name: "a hard link keeps the content of a name that is hidden", layers: [][]tar.Header{{file("a"), {Typeflag: tar.TypeLink, Name: "b", Linkname: "a"}}, {file(".wh.a")}}, want: []string{"b"}},
		{name: "names may be absolute", layers: [][]tar.Header{{file("/a"), file("./b")}}, want: []string{"a", "b"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := pullManager(t)
			var layers []v1.Layer
			for _, entries := range c.layers {
				layers = append(layers, layerOf(t, entries...))
			}
			img, err := m.Pull(t.Context(), api.ImagePull{Ref: layoutOf(t, layers...), Name: "it"}, opstate.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, names(t, img.Rootfs)); d != "" {
				t.Error(d)
			}
			for path, want := range c.inside {
				if got := strings.Contains(debugfs(t, img.Rootfs, "stat "+path), "Inode:"); got != want {
					t.Errorf("%s is there: %v", path, got)
				}
			}
			if err := ext4.Check(t.Context(), img.Rootfs); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestHostileLayers(t *testing.T) {
	for name, entries := range map[string][]tar.Header{
		"leads out of it":            {file("a/../../b")},
		"the name \"../../etc":       {{Typeflag: tar.TypeLink, Name: "b", Linkname: "../../etc/passwd"}},
		"which is no file before it": {{Typeflag: tar.TypeLink, Name: "b", Linkname: "/etc/shadow"}},
		"does not fit into the file": {{Typeflag: tar.TypeReg, Name: "bomb", Size: 600 << 20}},
		"symbolic links in its path": {{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "b"}, {Typeflag: tar.TypeSymlink, Name: "b", Linkname: "a"}, file("a/x")},
		"unknown type":               {{Typeflag: 'Z', Name: "z"}},
		"longer than 255":            {file(strings.Repeat("n", 300))},
	} {
		t.Run(name, func(t *testing.T) {
			m := pullManager(t)
			_, err := m.Pull(t.Context(), api.ImagePull{Ref: layoutOf(t, layerOf(t, entries...)), Name: "it", RootSize: 512 << 20}, opstate.Discard)
			wantKind(t, err, api.KindInvalid, name)
			wantNothingOf(t, m, temporaries(t))
		})
	}
}

// program skips a test that needs a program that is not here.
func program(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := host.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
}

func run(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := host.Output(t.Context(), host.Command{Argv: argv}); err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
}

// entryOf is what two trees are compared by.
func entryOf(t *testing.T, root, path string) string {
	t.Helper()
	var st unix.Stat_t
	full := filepath.Join(root, path)
	if err := unix.Lstat(full, &st); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%o %d:%d", st.Mode&^0o7000, st.Uid, st.Gid) // debugfs does not restore the bits beyond
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		b, err := os.ReadFile(full)
		if err != nil {
			t.Fatal(err)
		}
		text += fmt.Sprintf(" %d bytes %x time %d", len(b), sum(b), st.Mtim.Sec)
	case syscall.S_IFLNK:
		to, err := os.Readlink(full)
		if err != nil {
			t.Fatal(err)
		}
		text += " -> " + to
	case syscall.S_IFCHR, syscall.S_IFBLK, syscall.S_IFIFO:
		return "" // nor these files; what is special is looked at one by one
	}
	return text
}

func sum(b []byte) (s uint32) {
	for _, c := range b {
		s = s*31 + uint32(c)
	}
	return s
}

// tree describes everything below root but the names in skip.
func tree(t *testing.T, root string, skip ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path) //nolint:errcheck // it is below
		if err != nil || rel == "." || slices.ContainsFunc(skip, func(s string) bool { return rel == s || strings.HasPrefix(rel, s+"/") }) {
			return err
		}
		if text := entryOf(t, root, rel); text != "" {
			all[rel] = text
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// foreign makes a layout with umoci of two layers that have everything that a layer may have, and returns its directory.
func foreign(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	first, second := at("first"), at("second")
	script := `set -e
mkdir -p "$1/bin" "$1/var/empty" "$1/var/full" "$1/opt" "$1/root/.config" && cd "$1"
echo shell > bin/sh; chmod 4755 bin/sh; ln bin/sh bin/bash; ln -s ../bin/sh opt/link; ln -s /nowhere/` + strings.Repeat("long", 30) + ` opt/long-link
echo owned > opt/owned; chown 1234:70000 opt/owned; cp -a opt/owned opt/kept; mkfifo opt/fifo; mknod opt/null c 1 3; mknod opt/disk b 259 300
truncate -s 3M opt/sparse; printf end >> opt/sparse; head -c 2000000 /dev/urandom > opt/large
echo x > opt/` + strings.Repeat("n", 200) + `; echo gone > var/full/gone; echo stays > var/full/stays; echo old > var/empty/old; echo cfg > root/.config/c
setfattr -n user.note -v words opt/kept; setcap cap_net_raw+ep bin/sh 2>/dev/null || true
chmod 1777 var; touch -d @1000000000 opt/owned
mkdir -p "$2/var/empty" "$2/opt" && cd "$2"
echo new > var/empty/new; echo replaced > opt/owned; ln -s owned opt/second`
	run(t, "sh", "-c", script, "sh", first, second)
	l := at("layout")
	run(t, "umoci", "init", "--layout", l)
	run(t, "umoci", "new", "--image", l+":it")
	for _, d := range []string{"bin", "var", "opt", "root"} {
		run(t, "umoci", "insert", "--image", l+":it", filepath.Join(first, d), "/"+d)
	}
	run(t, "umoci", "insert", "--image", l+":it", "--whiteout", "/var/full/gone")
	run(t, "umoci", "insert", "--image", l+":it", "--opaque", filepath.Join(second, "var/empty"), "/var/empty")
	run(t, "umoci", "insert", "--image", l+":it", filepath.Join(second, "opt/owned"), "/opt/owned")
	run(t, "umoci", "config", "--image", l+":it", "--config.cmd", "sh", "--config.env", "A=1", "--config.user", "1234", "--config.workingdir", "/opt")
	return l
}

// TestForeignImages compares what becomes of an image with what umoci, which shares no code with us, makes of it; and takes the same
// image by every way there is.
func TestForeignImages(t *testing.T) {
	program(t, "umoci", "skopeo", "debugfs", "setfattr")
	if os.Geteuid() != 0 {
		t.Skip("needs root: files of several owners are made and compared")
	}
	l := foreign(t)
	bundle := filepath.Join(t.TempDir(), "bundle")
	run(t, "umoci", "unpack", "--image", l+":it", bundle)
	want := tree(t, filepath.Join(bundle, "rootfs"))

	ours := httptest.NewServer(registry.New(registry.Logger(nullLog())))
	defer ours.Close()
	repo := strings.TrimPrefix(ours.URL, "http://") + "/some/thing:it"
	dir := t.TempDir()
	copies := map[string]string{"a layout": "oci:" + l + ":it", "an OCI archive": "oci-archive:" + dir + "/o.tar", "a Docker archive": "docker-archive:" + dir + "/d.tar", "a registry": repo}
	run(t, "skopeo", "--insecure-policy", "copy", "-q", "oci:"+l+":it", "oci-archive:"+dir+"/o.tar")
	run(t, "skopeo", "--insecure-policy", "copy", "-q", "oci:"+l+":it", "docker-archive:"+dir+"/d.tar:it:latest")
	run(t, "skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "oci:"+l+":it", "docker://"+repo)
	for name, ref := range copies {
		t.Run(name, func(t *testing.T) {
			m := pullManager(t)
			img, err := m.Pull(t.Context(), api.ImagePull{Ref: ref, Name: "it"}, opstate.Discard)
			if err != nil {
				t.Fatal(err)
			}
			got := t.TempDir()
			run(t, "debugfs", "-R", "rdump / "+got, img.Rootfs)
			run(t, "debugfs", "-R", "rdump / "+filepath.Join(got, "root"), img.WorkSeed)
			have := tree(t, got, "lost+found", "root/lost+found", "dev", "proc", "sys", "run", "tmp", "etc")
			delete(want, "root") // its mode is in both file systems
			delete(have, "root")
			if d := cmp.Diff(want, have); d != "" {
				t.Errorf("umoci unpacks -, we have +:\n%s", d)
			}
			for path, want := range map[string][]string{
				"/bin/bash": {"Links: 2", "Mode:  04755"}, "/var": {"Mode:  01777"}, "/opt/fifo": {"Type: FIFO"}, "/opt/null": {"Type: character special", "number: 01:03"},
				"/opt/disk": {"Type: block special", "259:300"}, "/opt/kept": {"User:  1234", "Group: 70000", "user.note", "words"}, "/opt/sparse": {"Size: 3145731"},
			} {
				got := debugfs(t, img.Rootfs, "stat "+path)
				for _, w := range want {
					if !strings.Contains(strings.Join(strings.Fields(got), " "), strings.Join(strings.Fields(w), " ")) {
						t.Errorf("%s has no %q:\n%s", path, w, got)
					}
				}
			}
			if img.Run == nil || !slices.Equal(img.Run.Command, []string{"sh"}) || img.Run.User != "1234" || img.Run.Dir != "/opt" || !slices.Contains(img.Run.Env, "A=1") {
				t.Errorf("its use is %+v", img.Run)
			}
			if err := ext4.Check(t.Context(), img.Rootfs); err != nil {
				t.Error(err)
			}
			again, err := m.Pull(t.Context(), api.ImagePull{Ref: ref, Name: "it"}, opstate.Discard)
			if err != nil || again.ID != img.ID {
				t.Errorf("the second time: %v, %v", again.ID, err)
			}
		})
	}
}

func nullLog() *log.Logger { return log.New(io.Discard, "", 0) }

// push puts an image of these layers into a registry.
func push(t *testing.T, repo string, layers ...v1.Layer) {
	t.Helper()
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(repo)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
}

// TestRegistryFaults is a registry that cuts connections, wants credentials, or lies.
func TestRegistryFaults(t *testing.T) {
	inner := registry.New(registry.Logger(nullLog()))
	var cut, ranges, lie int
	auth, layer := "", "none"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if auth != "" && r.Header.Get("Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(auth)) {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodGet && r.Header.Get("Range") != "" {
			ranges++
		}
		blob := r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, layer)
		switch {
		case blob && cut > 0:
			w = &cutting{ResponseWriter: w, left: &cut}
		case blob && lie > 0:
			lie--
			w = &lying{w}
		}
		inner.ServeHTTP(w, r)
	}))
	defer server.Close()
	repo := strings.TrimPrefix(server.URL, "http://") + "/it"
	content := make([]tar.Header, 0, 40)
	for i := range 40 {
		content = append(content, tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("f%d", i), Size: 10})
	}
	pushed := layerOf(t, content...)
	push(t, repo, pushed)
	digest, err := pushed.Digest()
	if err != nil {
		t.Fatal(err)
	}
	layer = digest.String()
	m := pullManager(t)
	pull := func() error {
		_, err := m.Pull(t.Context(), api.ImagePull{Ref: repo}, opstate.Discard)
		return err
	}
	t.Run("a download that is cut goes on from there", func(t *testing.T) {
		cut = 100
		wantKind(t, pull(), api.KindUnavailable, "download layer")
		cut = 0
		wantNothingOf(t, m, temporaries(t))
		if partial, err := filepath.Glob(filepath.Join(m.layersDir(), "*.partial")); err != nil || len(partial) != 1 {
			t.Fatalf("partial layers %v %v", partial, err)
		}
		if err := pull(); err != nil || ranges != 1 {
			t.Errorf("%v, %d requests with a range", err, ranges)
		}
	})
	t.Run("a layer with another digest is refused, and is downloaded anew", func(t *testing.T) {
		m = pullManager(t)
		lie = 1
		wantKind(t, pull(), api.KindDataLoss, "digest")
		lie = 0
		if err := pull(); err != nil {
			t.Error(err)
		}
	})
	t.Run("what is not there is not found, and a registry that is not there is unavailable", func(t *testing.T) {
		_, err := m.Pull(t.Context(), api.ImagePull{Ref: repo + ":none"}, opstate.Discard)
		wantKind(t, err, api.KindNotFound, "no such image")
		_, err = m.Pull(t.Context(), api.ImagePull{Ref: "127.0.0.1:1/x"}, opstate.Discard)
		wantKind(t, err, api.KindUnavailable, "127.0.0.1:1")
	})
	t.Run("a private one wants the credentials that docker login stores", func(t *testing.T) {
		m = pullManager(t)
		auth = "ann:secret"
		t.Setenv("DOCKER_CONFIG", t.TempDir())
		wantKind(t, pull(), api.KindPermission, "refuses")
		config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, strings.TrimPrefix(server.URL, "http://"), base64.StdEncoding.EncodeToString([]byte(auth)))
		if err := os.WriteFile(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := pull(); err != nil {
			t.Error(err)
		}
	})
}

func TestPullRequests(t *testing.T) {
	m := pullManager(t)
	ref := layoutOf(t, layerOf(t, file("a")))
	for _, c := range []struct {
		p    api.ImagePull
		want string
	}{
		{p: api.ImagePull{Ref: "Not A Ref", Name: "x"}, want: "bad image reference"},
		{p: api.ImagePull{Ref: "oci:relative", Name: "x"}, want: "not absolute"},
		{p: api.ImagePull{Ref: ref, Name: "No Name"}, want: "bad image name"},
		{p: api.ImagePull{Ref: ref, Name: "x", Platform: "plan9/mips"}, want: "VMs here run"},
		{p: api.ImagePull{Ref: ref, Name: "x", RootSize: 1}, want: "root size"},
		{p: api.ImagePull{Ref: ref, Name: "x", Init: "relative"}, want: "bad init"},
	} {
		_, err := m.Pull(t.Context(), c.p, opstate.Discard)
		wantKind(t, err, api.KindInvalid, c.want)
	}
	_, err := m.Pull(t.Context(), api.ImagePull{Ref: "oci:/nonexistent", Name: "x"}, opstate.Discard)
	wantKind(t, err, api.KindNotFound, "/nonexistent")
	wantNothingOf(t, m, temporaries(t))
	for ref, want := range map[string]string{"alpine:3.20": "alpine-3-20", "localhost:5000/a/B_c:latest": "b-c", "oci-archive:/x/my.tar": "my", "r/x@sha256:00": "x"} {
		if got := nameOf(ref); got != want {
			t.Errorf("name of %s: %q, want %q", ref, got, want)
		}
	}
	t.Run("another image of the name is refused, unless it is to be replaced", func(t *testing.T) {
		first, err := m.Pull(t.Context(), api.ImagePull{Ref: ref, Name: "x"}, opstate.Discard)
		if err != nil {
			t.Fatal(err)
		}
		other := layoutOf(t, layerOf(t, file("b")))
		_, err = m.Pull(t.Context(), api.ImagePull{Ref: other, Name: "x"}, opstate.Discard)
		wantKind(t, err, api.KindExists, "another one")
		second, err := m.Pull(t.Context(), api.ImagePull{Ref: other, Name: "x", Replace: true}, opstate.Discard)
		if err != nil || second.ID == first.ID {
			t.Errorf("got %v, %v", second.ID, err)
		}
	})
}

// cutting ends a response after some bytes.
type cutting struct {
	http.ResponseWriter
	left *int
}

func (c *cutting) Write(p []byte) (int, error) {
	if n := min(len(p), *c.left); n > 0 {
		*c.left -= n
		if _, err := c.ResponseWriter.Write(p[:n]); err != nil {
			return 0, err
		}
	}
	if *c.left == 0 {
		if err := http.NewResponseController(c.ResponseWriter).Flush(); err != nil {
			return 0, err
		}
		panic(http.ErrAbortHandler)
	}
	return len(p), nil
}

// lying changes a byte of a response.
type lying struct{ http.ResponseWriter }

func (l *lying) Write(p []byte) (int, error) {
	p = bytes.Clone(p)
	p[len(p)/2] ^= 1
	return l.ResponseWriter.Write(p)
}
