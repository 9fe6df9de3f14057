package imagemgr

import (
	"archive/tar"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/opstate"
)

// TestHome: /root is a file system of its own, and an image must not notice.
func TestHome(t *testing.T) {
	link := func(name, to string) tar.Header { return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to} }
	pull := func(t *testing.T, layers ...[]tar.Header) banger.Image {
		t.Helper()
		var all []v1.Layer
		for _, entries := range layers {
			all = append(all, layerOf(t, entries...))
		}
		img, err := pullManager(t).Pull(t.Context(), api.ImagePull{Ref: layoutOf(t, all...), Name: "it"}, opstate.Discard)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	t.Run("a hard link between /root and the rest becomes a copy", func(t *testing.T) {
		img := pull(t, []tar.Header{file("root/.cache/a"), file("bin/b"), link("srv/of-home", "root/.cache/a"), link("root/of-bin", "bin/b"), link("root/inner", "root/.cache/a")})
		for fs, paths := range map[string][]string{img.Rootfs: {"/srv/of-home", "/bin/b"}, img.WorkSeed: {"/.cache/a", "/of-bin", "/inner"}} {
			for _, path := range paths {
				if got := debugfs(t, fs, "stat "+path); !strings.Contains(got, "Size: 1\n") && !strings.Contains(got, "Size: 1 ") {
					t.Errorf("%s of %s:\n%s", path, fs, got)
				}
			}
		}
	})
	t.Run("whiteouts take what is in there", func(t *testing.T) {
		for mark, want := range map[string]string{"root/.wh.old": "keep", ".wh.root": "", "root/.wh..wh..opq": "", ".wh..wh..opq": ""} {
			img := pull(t, []tar.Header{file("root/old"), file("root/keep")}, []tar.Header{file(mark)})
			if got := strings.Join(names(t, img.WorkSeed), " "); got != want {
				t.Errorf("%s leaves %q, want %q", mark, got, want)
			}
		}
	})
}

// TestSharedLayers: pulls at the same time that have a layer in common download it once.
func TestSharedLayers(t *testing.T) {
	inner := registry.New(registry.Logger(nullLog()))
	var asked atomic.Int32
	layer := layerOf(t, file("shared"))
	digest, err := layer.Digest()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, digest.String()) {
			asked.Add(1)
		}
		inner.ServeHTTP(w, r)
	}))
	defer server.Close()
	repo := strings.TrimPrefix(server.URL, "http://") + "/it"
	push(t, repo, layer)
	m := pullManager(t)
	var wg sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d"} {
		wg.Go(func() {
			if _, err := m.Pull(t.Context(), api.ImagePull{Ref: repo, Name: name}, opstate.Discard); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("the layer was asked for %d times", n)
	}
}
