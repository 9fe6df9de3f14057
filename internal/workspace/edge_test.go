package workspace_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/workspace"
	"github.com/banger-vm/banger/internal/workspace/source"
)

func TestInspectRefuses(t *testing.T) {
	tests := []struct {
		name string
		repo func(l *lab)
		opts source.Options
		kind api.ErrorKind
		text string
	}{
		{name: "a path that is not there", repo: func(l *lab) { l.repo += "/no" }, kind: api.KindNotFound, text: "no such file"},
		{name: "a directory in no repository", repo: func(l *lab) { l.repo = l.home }, kind: api.KindNotFound, text: "no git repository"},
		{name: "a broken repository", repo: func(l *lab) { l.check(os.Remove(l.repo + "/.git/HEAD")) }, kind: api.KindPermission, text: "git refuses"},
		{name: "a bare repository", repo: func(l *lab) { l.git(l.repo, "init", "-q", "--bare", "b.git"); l.repo += "/b.git" }, kind: api.KindPrecondition, text: "without a working tree"},
		{name: "the inside of .git", repo: func(l *lab) { l.repo += "/.git" }, kind: api.KindPrecondition, text: "without a working tree"},
		{name: "a repository without a commit", kind: api.KindPrecondition, text: "no commit yet"},
		{name: "a branch that does not exist", repo: func(l *lab) { l.commit() }, opts: source.Options{From: "nowhere"}, kind: api.KindNotFound, text: `"nowhere" names no commit`},
		{name: "a commit that is an option", repo: func(l *lab) { l.commit() }, opts: source.Options{From: "--all"}, kind: api.KindNotFound, text: "names no commit"},
		{name: "a bad branch name", repo: func(l *lab) { l.commit() }, opts: source.Options{Branch: "a..b"}, kind: api.KindInvalid, text: "bad branch name"},
		{name: "a negative depth", repo: func(l *lab) { l.commit() }, opts: source.Options{Depth: -1}, kind: api.KindInvalid, text: "negative"},
		{
			name: "a branch that is taken",
			repo: func(l *lab) { l.commit(); l.git(l.repo, "branch", "old"); l.commit() },
			opts: source.Options{Branch: "old"}, kind: api.KindExists, text: "another commit",
		},
		{
			name: "a submodule",
			repo: func(l *lab) {
				l.commit("a", "1")
				l.git(l.repo, "-c", "protocol.file.allow=always", "submodule", "-q", "add", l.repo, "sub")
			},
			kind: api.KindPrecondition, text: `has submodules, which cannot be carried: "sub"`,
		},
		{
			name: "a merge that is not resolved",
			repo: func(l *lab) {
				l.commit("a", "1")
				l.git(l.repo, "checkout", "-q", "-b", "side")
				l.commit("a", "2")
				l.git(l.repo, "checkout", "-q", "main")
				l.commit("a", "3")
				l.git(l.repo, "read-tree", "-m", "main~1", "main", "side")
			},
			kind: api.KindPrecondition, text: `unmerged files`,
		},
		{
			name: "a repository of another hash",
			repo: func(l *lab) {
				l.repo += "256"
				l.check(os.Mkdir(l.repo, 0o755))
				l.git(l.repo, "init", "-q", "--object-format=sha256")
			},
			kind: api.KindPrecondition, text: "sha256",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			if tt.repo != nil {
				tt.repo(l)
			}
			_, err := l.open(tt.opts)
			if !errkind.Is(err, tt.kind) || !strings.Contains(fmt.Sprint(err), tt.text) {
				t.Errorf("error %v of kind %q, want %q of kind %q", err, errkind.Of(err), tt.text, tt.kind)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	t.Run("a new branch starts where the working tree is", func(t *testing.T) {
		l := newLab(t)
		l.commit("a", "1")
		l.write(l.repo, "a", "2")
		w := l.carryIn(source.Options{Branch: "topic/x"})
		if got := l.git(l.path, "symbolic-ref", "HEAD"); got != "refs/heads/topic/x\n" || w.Branch != "topic/x" {
			t.Errorf("HEAD is %q, the record says %q", got, w.Branch)
		}
		l.sameStatus()
	})
	t.Run("from a commit goes what that commit has, and nothing of the working tree", func(t *testing.T) {
		l := newLab(t)
		l.commit("a", "1", ".gitattributes", "*.crlf eol=crlf\n", "x.crlf", "1\n", "ignored.o", "1")
		l.git(l.repo, "tag", "v1")
		l.commit("a", "2", "b", "2")
		l.write(l.repo, "a", "3")
		l.write(l.repo, "untracked", "3")
		w := l.carryIn(source.Options{From: "v1", IncludeUntracked: true})
		if got := l.git(l.path, "status", "--porcelain"); got != "" {
			t.Errorf("status in the guest: %s", got)
		}
		if text, _ := os.ReadFile(filepath.Join(l.path, "x.crlf")); string(text) != "1\r\n" {
			t.Errorf("line ends of the checkout: %q", text)
		}
		if got := l.git(l.path, "describe", "--tags"); w.Branch != "" || got == "" {
			t.Errorf("branch %q, describe %q", w.Branch, got)
		}
		l.write(l.path, "a", "guest")
		if patch := string(l.patch(w)); !strings.Contains(patch, "+guest") || strings.Contains(patch, "diff --git a/b") {
			t.Errorf("patch: %s", patch)
		}
	})
	t.Run("a branch to start from is checked out", func(t *testing.T) {
		l := newLab(t)
		l.commit("a", "1")
		l.git(l.repo, "branch", "old")
		l.commit("a", "2")
		if w := l.carryIn(source.Options{From: "old"}); w.Branch != "old" {
			t.Errorf("branch %q", w.Branch)
		}
	})
	t.Run("depth bounds the history", func(t *testing.T) {
		l := newLab(t)
		for i := range 9 {
			l.commit("a", fmt.Sprint(i))
		}
		l.carryIn(source.Options{Depth: 4})
		if got := l.git(l.path, "rev-list", "--count", "HEAD"); got != "4\n" {
			t.Errorf("%s commits in the guest, want 4", got)
		}
	})
}

func TestPlanListsWhatGoes(t *testing.T) {
	l := newLab(t)
	l.commit("a", "1", "b", "1", "c", "123")
	l.write(l.repo, "a", "changed")
	l.write(l.repo, "b", "staged")
	l.git(l.repo, "add", "b")
	l.write(l.repo, "u", "untracked")
	l.git(l.repo, "init", "-q", "nested")
	src, err := l.open(source.Options{})
	l.check(err)
	p := src.Plan()
	want := []source.File{{Path: "a", Size: 7}, {Path: "b", Size: 6}, {Path: "c", Size: 3}}
	if !slices.Equal(p.Files, want) || p.Bytes != 16 || p.Changed != 2 || p.Untracked != 1 || len(p.Notes) != 2 || p.Branch != "main" {
		t.Errorf("plan %+v", p)
	}
}

func TestRemoteGoesWithoutItsPassword(t *testing.T) {
	l := newLab(t)
	l.commit("a", "1")
	bare := l.repo + ".git"
	l.git(l.home, "clone", "-q", "--bare", l.repo, bare)
	l.git(l.repo, "remote", "add", "origin", bare)
	l.git(l.repo, "fetch", "-q", "origin")
	l.git(l.repo, "branch", "-q", "-u", "origin/main")
	l.commit("a", "2")
	l.carryIn(source.Options{})
	l.write(l.path, "a", "guest")
	l.git(l.path, "commit", "-qam", "guest")
	if got, want := l.git(l.path, "status", "-sb"), "## main...origin/main [ahead 2]\n"; got != want {
		t.Errorf("status %q, want %q", got, want)
	}
	if got, want := l.git(l.path, "log", "-1", "--format=%an <%ae>"), "Test User <test@example.invalid>\n"; got != want {
		t.Errorf("author %q, want %q", got, want)
	}
	l.git(l.path, "push", "-q", "origin", "main")
	if got, want := l.git(bare, "rev-parse", "main"), l.git(l.path, "rev-parse", "HEAD"); got != want {
		t.Errorf("pushed %s, want %s", got, want)
	}

	l.git(l.repo, "remote", "set-url", "origin", "https://user:s3cret@example.invalid/x.git")
	l.path += "2"
	l.carryIn(source.Options{})
	config, err := os.ReadFile(filepath.Join(l.path, ".git/config"))
	l.check(err)
	if bytes.Contains(config, []byte("s3cret")) || !bytes.Contains(config, []byte("https://example.invalid/x.git")) {
		t.Errorf("configuration in the guest:\n%s", config)
	}
}

// A filter stands for git-lfs: the repository has something other than the disk, and running it leaves a trace.
func TestFilteredFilesGoAsTheyAre(t *testing.T) {
	for _, noGit := range []bool{false, true} {
		t.Run(fmt.Sprintf("guest without git: %v", noGit), func(t *testing.T) {
			l := newLab(t)
			l.git(l.repo, "config", "filter.lfs.clean", "sed s/content/pointer/")
			l.git(l.repo, "config", "filter.lfs.smudge", "sed s/pointer/content/")
			l.git(l.repo, "config", "filter.lfs.required", "true")
			l.commit(".gitattributes", "*.bin filter=lfs\n", "same.bin", "content 1\n", "edited.bin", "content 2\n", "both.bin", "content 3\n")
			l.write(l.repo, "edited.bin", "content 2 on the host\n")
			l.write(l.repo, "both.bin", "content 3 on the host\n")
			l.noGit = noGit
			w := l.carryIn(source.Options{})
			l.sameFiles(l.path, l.repo)
			l.sameStatus()
			if s := l.status(w); s.Changed {
				t.Errorf("status before any change: %+v", s)
			}
			l.write(l.path, "both.bin", "content 3 on the host and in the guest\n")
			l.carryBack(w)
			l.sameFiles(l.repo, l.path)
		})
	}
}

func TestCallersGitEnvironmentIsNoMatter(t *testing.T) {
	l := newLab(t)
	l.commit("a", "1")
	for _, name := range []string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY"} {
		t.Setenv(name, filepath.Join(l.home, "elsewhere"))
	}
	src, err := l.open(source.Options{})
	l.check(err)
	if len(src.Plan().Files) != 1 {
		t.Errorf("plan %+v", src.Plan())
	}
}

func TestFileThatChangesWhileItIsCarriedEndsTheStream(t *testing.T) {
	for name, change := range map[string]func(l *lab){
		"rewritten": func(l *lab) { l.write(l.repo, "a", "other") },
		"replaced": func(l *lab) {
			l.write(l.repo, "b", "1")
			l.check(os.Rename(filepath.Join(l.repo, "b"), filepath.Join(l.repo, "a")))
		},
		"gone": func(l *lab) { l.check(os.Remove(filepath.Join(l.repo, "a"))) },
		"now a link": func(l *lab) {
			l.check(os.Remove(filepath.Join(l.repo, "a")))
			l.check(os.Symlink("x", filepath.Join(l.repo, "a")))
		},
		"now no file": func(l *lab) {
			l.check(os.Remove(filepath.Join(l.repo, "a")))
			l.check(os.Mkdir(filepath.Join(l.repo, "a"), 0o755))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.commit("a", "1")
			src, err := l.open(source.Options{})
			l.check(err)
			change(l)
			err = l.send(func(w io.Writer) error {
				err := src.Stream(l.Context(), w)
				if !errkind.Is(err, api.KindBusy) {
					t.Errorf("error %v of kind %q", err, errkind.Of(err))
				}
				return err
			})
			if err == nil {
				t.Error("the guest took it")
			}
			l.nothingLeft()
		})
	}
}

// nothingLeft checks that the guest has nothing of a workspace.
func (l *lab) nothingLeft() {
	l.Helper()
	l.waitServed()
	if _, err := os.Lstat(filepath.Dir(l.path)); !errors.Is(err, fs.ErrNotExist) {
		l.Errorf("the guest has %s still: %v", filepath.Dir(l.path), err)
	}
}

func TestStreamThatIsCutLeavesNothing(t *testing.T) {
	l := newLab(t)
	l.commit("a", strings.Repeat("x", 300<<10), "b/c", "1")
	src, err := l.open(source.Options{})
	l.check(err)
	var whole bytes.Buffer
	l.check(src.Stream(l.Context(), &whole))
	for _, n := range []int{0, 100, 2000, 200 << 10, whole.Len() - 3000} {
		err := l.send(func(w io.Writer) error {
			if _, err := w.Write(whole.Bytes()[:n]); err != nil {
				return err
			}
			return iotest.ErrTimeout // the client dies
		})
		if !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("after %d bytes: %v", n, err)
		}
		l.nothingLeft()
	}
	l.check(l.send(func(w io.Writer) error { _, err := w.Write(whole.Bytes()); return err }))
}

func TestHostileStreamsAreRefused(t *testing.T) {
	index := "DIRC\x00\x00\x00\x02\x00\x00\x00\x09" + strings.Repeat("\x00", 40)
	for name, entries := range map[string][]tar.Header{
		"a name that climbs":           {{Name: "../x"}},
		"a name that climbs later":     {{Name: "a/../../x"}},
		"an absolute name":             {{Name: "/tmp/x"}},
		"an empty step":                {{Name: "a//x"}},
		"the directory itself":         {{Name: "."}},
		"through a symbolic link":      {{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, {Name: "a/x"}},
		"over a symbolic link":         {{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/tmp/x"}, {Name: "a"}},
		"through a link of two steps":  {{Name: "a/b", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "a/b/x"}},
		"a hard link":                  {{Name: "a", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}},
		"a device":                     {{Name: "a", Typeflag: tar.TypeChar}},
		"an index that is cut":         {{Name: ".git/index", Size: int64(len(index))}},
		"a clean file and no index":    {{Name: "a", Uname: "clean"}},
		"a directory through a link":   {{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}, {Name: "a/", Typeflag: tar.TypeDir}},
		"a directory outside":          {{Name: "../d/", Typeflag: tar.TypeDir}},
		"an index of a terabyte":       {{Name: ".git/index", Size: 1 << 40}},
		"the same file a second time":  {{Name: "a"}, {Name: "a"}},
		"a file in place of directory": {{Name: "a/b"}, {Name: "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range entries {
				l.check(w.WriteHeader(&h))
				if h.Size > 0 && h.Size < 1<<20 {
					_, err := io.WriteString(w, index)
					l.check(err)
				}
			}
			_ = w.Close() // an entry without its bytes is one of the cases
			err := l.send(func(w io.Writer) error { _, err := w.Write(b.Bytes()); return err })
			if err == nil {
				t.Error("taken")
			}
			l.nothingLeft()
		})
	}
}

func TestPathInTheGuest(t *testing.T) {
	l := newLab(t)
	for _, path := range []string{"", "/", "src", "/a/../b", "/a/"} {
		_, _, err := l.call(guestapi.MethodWorkIn, guestapi.WorkIn{Path: path}, nil)
		if !errkind.Is(err, api.KindInvalid) {
			t.Errorf("path %q: %v", path, err)
		}
	}
	l.write(l.path, "mine", "1")
	if _, _, err := l.call(guestapi.MethodWorkIn, guestapi.WorkIn{Path: l.path}, nil); !errkind.Is(err, api.KindExists) {
		t.Errorf("a directory that is not empty: %v", err)
	}
	if _, err := os.Stat(filepath.Join(l.path, "mine")); err != nil {
		t.Error(err)
	}
	_, _, err := l.call(guestapi.MethodWorkStat, guestapi.WorkRef{Path: l.home + "/no", BaseTree: strings.Repeat("a", 40)}, nil)
	if !errkind.Is(err, api.KindNotFound) {
		t.Errorf("status of nothing: %v", err)
	}
}

func TestWorkThatNoPatchHoldsCountsAsChanged(t *testing.T) {
	l := newLab(t)
	l.commit("a", "1")
	w := l.carryIn(source.Options{})
	l.write(l.path, "a", "stashed")
	l.git(l.path, "stash", "-q")
	l.git(l.path, "checkout", "-q", "-b", "side")
	l.write(l.path, "b", "side")
	l.git(l.path, "add", "b")
	l.git(l.path, "commit", "-qm", "side")
	l.git(l.path, "checkout", "-q", "main")
	s := l.status(w)
	if !s.Changed || s.Tree != w.BaseTree || strings.Join(s.Refs, " ") != "refs/heads/side refs/stash" {
		t.Errorf("status %+v", s)
	}
	l.git(l.path, "checkout", "-q", "--orphan", "fresh")
	if s := l.status(w); s.Branch != "fresh" || s.Head != "" || len(s.Refs) != 2 {
		t.Errorf("status without a HEAD: %+v", s)
	}
}

func TestWorkspaceWithoutItsRepositoryIsStillExported(t *testing.T) {
	l := newLab(t)
	l.commit("a", "1", ".gitignore", "*.o\n")
	w := l.carryIn(source.Options{})
	l.check(os.RemoveAll(filepath.Join(l.path, ".git")))
	l.git(l.path, "init", "-q")
	l.write(l.path, "a", "guest")
	l.write(l.path, "x.o", "ignored")
	if s := l.status(w); !s.Changed || s.Git {
		t.Errorf("status %+v", s)
	}
	l.carryBack(w)
	l.sameFiles(l.repo, l.path, "x.o")
}

func TestBundle(t *testing.T) {
	l := newLab(t)
	l.commit("a", "1")
	w := l.carryIn(source.Options{})
	if _, out := l.export(w, "bundle"); len(out) != 0 {
		t.Errorf("a bundle of nothing has %d bytes", len(out))
	}
	l.git(l.path, "checkout", "-q", "-b", "side")
	l.write(l.path, "b", "side")
	l.git(l.path, "add", "b")
	l.git(l.path, "commit", "-qm", "side")
	l.git(l.path, "checkout", "-q", "main")
	l.write(l.path, "c", "not committed")
	_, out := l.export(w, "bundle")
	file := filepath.Join(l.home, "b")
	l.check(os.WriteFile(file, out, 0o600))
	l.git(l.repo, "bundle", "verify", "-q", file)
	l.git(l.repo, "fetch", "-q", file, "refs/heads/*:refs/guest/*", "refs/banger/export:refs/guest/export")
	if got := l.git(l.repo, "show", "refs/guest/side:b") + l.git(l.repo, "show", "refs/guest/export:c"); got != "sidenot committed" {
		t.Errorf("the bundle has %q", got)
	}
	l.noGit = true
	_, _, err := l.call(guestapi.MethodWorkOut, guestapi.WorkOut{
		WorkRef: guestapi.WorkRef{Path: l.path, BaseTree: w.BaseTree}, Format: "bundle", BaseCommit: w.BaseCommit}, nil)
	if !errkind.Is(err, api.KindPrecondition) {
		t.Errorf("a bundle without git: %v", err)
	}
}

func TestTarHasTheWorkingTree(t *testing.T) {
	l := newLab(t)
	l.commit("a", "1", ".gitignore", "*.o\n", "gone", "1")
	w := l.carryIn(source.Options{})
	l.write(l.path, "new", "1")
	l.write(l.path, "x.o", "1")
	l.check(os.Remove(filepath.Join(l.path, "gone")))
	names := func() string {
		_, out := l.export(w, "tar")
		var names []string
		for r := tar.NewReader(bytes.NewReader(out)); ; {
			h, err := r.Next()
			if err == io.EOF {
				return strings.Join(names, " ")
			}
			l.check(err)
			names = append(names, h.Name)
		}
	}
	if got, want := names(), ".gitignore a new"; got != want {
		t.Errorf("the tar has %s, want %s", got, want)
	}
	l.noGit = true
	if got, want := names(), ".gitignore a new x.o"; got != want {
		t.Errorf("without git the tar has %s, want %s", got, want)
	}
}

func TestApply(t *testing.T) {
	l := newLab(t)
	l.commit("a", "1\n", "b", "1\n")
	w := l.carryIn(source.Options{})
	if patch := l.patch(w); len(patch) != 0 {
		t.Errorf("no change gives a patch of %d bytes", len(patch))
	}
	l.write(l.path, "a", "guest\n")
	l.write(l.path, "b", "guest\n")
	l.write(l.path, "new", "guest\n")
	file := filepath.Join(l.home, "p")
	l.check(os.WriteFile(file, l.patch(w), 0o600))

	t.Run("a conflict changes nothing and names the files", func(t *testing.T) {
		l.write(l.repo, "b", "host\n")
		l.write(l.repo, "new", "host\n")
		before := l.digest(l.repo)
		_, err := workspace.Apply(t.Context(), l.repo, file)
		text := fmt.Sprint(err)
		if !errkind.Is(err, api.KindPrecondition) || !strings.Contains(text, "b:1") || !strings.Contains(text, "new: already exists") {
			t.Errorf("error %v", err)
		}
		if l.digest(l.repo) != before {
			t.Error("something was changed")
		}
		l.write(l.repo, "b", "1\n")
		l.check(os.Remove(filepath.Join(l.repo, "new")))
	})
	t.Run("from a subdirectory it applies to the whole repository", func(t *testing.T) {
		l.write(l.repo, "sub/x", "")
		got, err := workspace.Apply(t.Context(), filepath.Join(l.repo, "sub"), file)
		if err != nil || strings.Join(got, " ") != "a b new" {
			t.Errorf("changed %q, error %v", got, err)
		}
	})
	t.Run("a patch that leads out of the repository is refused", func(t *testing.T) {
		for _, name := range []string{"../x", ".git/hooks/post-checkout", "link/x", "/tmp/banger-x"} {
			l.check(errors.Join(os.RemoveAll(l.repo+"/link"), os.Symlink(l.home, l.repo+"/link")))
			text := "diff --git a/" + name + " b/" + name + "\nnew file mode 100755\n--- /dev/null\n+++ b/" + name + "\n@@ -0,0 +1 @@\n+x\n"
			l.check(os.WriteFile(file, []byte(text), 0o600))
			before := l.digest(filepath.Dir(l.repo))
			if _, err := workspace.Apply(t.Context(), l.repo, file); err == nil {
				t.Errorf("%s: applied", name)
			}
			if l.digest(filepath.Dir(l.repo)) != before {
				t.Errorf("%s: something was changed", name)
			}
		}
	})
}

func TestPatchFromHostileTar(t *testing.T) {
	l := newLab(t)
	l.commit("a", "1\n")
	w := l.carryIn(source.Options{})
	for name, h := range map[string]tar.Header{
		"climbs":           {Name: "../x"},
		"configuration":    {Name: ".git/config"},
		"nested":           {Name: "sub/.GIT/config"},
		"absolute":         {Name: "/tmp/banger-x"},
		"a device":         {Name: "x", Typeflag: tar.TypeFifo},
		"a pack of rubish": {Name: ".git/objects/pack/pack-1.pack"},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			tw := tar.NewWriter(&b)
			l.check(tw.WriteHeader(&h))
			l.check(tw.Close())
			before := l.digest(filepath.Dir(l.repo))
			if err := workspace.PatchFromTar(t.Context(), l.repo, w.BaseTree, &b, io.Discard); err == nil {
				t.Error("taken")
			}
			if l.digest(filepath.Dir(l.repo)) != before {
				t.Error("something was left")
			}
		})
	}
}

func TestCancelEndsTheStream(t *testing.T) {
	l := newLab(t)
	l.commit("a", "1")
	src, err := l.open(source.Options{})
	l.check(err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := src.Stream(ctx, io.Discard); !errkind.Is(err, api.KindCanceled) {
		t.Errorf("error %v", err)
	}
}

func TestFiveThousandFiles(t *testing.T) {
	for _, noGit := range []bool{false, true} {
		l := newLab(t)
		for i := range 5000 {
			l.write(l.repo, fmt.Sprintf("d%02d/e%d/f%04d", i%50, i%7, i), strings.Repeat(fmt.Sprintln("line", i), i%40))
		}
		l.commit()
		l.write(l.repo, "d01/e1/f0001", "host")
		l.noGit = noGit
		w := l.carryIn(source.Options{})
		l.sameStatus()
		for i := 0; i < 5000; i += 100 {
			l.write(l.path, fmt.Sprintf("d%02d/e%d/f%04d", i%50, i%7, i), "guest")
		}
		if s := l.status(w); len(s.Files) != 50 {
			t.Errorf("%d files changed, want 50", len(s.Files))
		}
		l.carryBack(w)
		l.sameFiles(l.repo, l.path)
	}
}
