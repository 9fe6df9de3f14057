package workspace_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/workspace/source"
)

// trips are states of the user's repository and things done in the guest. After the trip the user's files must be those of
// the guest.
var trips = []struct {
	name  string
	repo  func(l *lab) // on top of one commit; nil: nothing
	opts  source.Options
	guest func(l *lab) // nil: nothing
	apart []string     // files that may differ: what stayed on the host
}{
	{name: "a clean tree in which nothing happens"},
	{name: "an edit of a clean tree", guest: func(l *lab) { l.write(l.path, "a.txt", "new\n") }},
	{
		name: "unstaged changes",
		repo: func(l *lab) {
			l.write(l.repo, "a.txt", "host\n")
			l.check(os.Remove(filepath.Join(l.repo, "dir/b.txt")))
		},
		guest: func(l *lab) {
			l.write(l.path, "a.txt", "host\nguest\n")
		},
	},
	{
		name: "staged changes, and unstaged ones on top",
		repo: func(l *lab) {
			l.write(l.repo, "a.txt", "staged\n")
			l.write(l.repo, "new.txt", "staged\n")
			l.git(l.repo, "rm", "-q", "dir/b.txt")
			l.git(l.repo, "add", "-A")
			l.write(l.repo, "new.txt", "staged\nunstaged\n")
		},
		guest: func(l *lab) { l.write(l.path, "new.txt", "staged\nunstaged\nguest\n") },
	},
	{
		name: "a file that git is only told of",
		repo: func(l *lab) { l.write(l.repo, "soon.txt", "soon\n"); l.git(l.repo, "add", "-N", "soon.txt") },
	},
	{
		name:  "untracked files that stay",
		repo:  func(l *lab) { l.write(l.repo, ".git/info/exclude", "mine\n"); l.write(l.repo, "mine", "x") },
		guest: func(l *lab) { l.write(l.path, "made-in-guest", "") },
		apart: []string{"mine"},
	},
	{
		name: "untracked files that go, and ignored ones that do not",
		repo: func(l *lab) {
			l.write(l.repo, ".gitignore", "*.log\n")
			l.write(l.repo, "dir.d/untracked.txt", "1\n")
			l.write(l.repo, "untracked.txt", "1\n")
			l.write(l.repo, "x.log", "stays")
		},
		opts: source.Options{IncludeUntracked: true},
		guest: func(l *lab) {
			l.write(l.path, "untracked.txt", "2\n")
			l.write(l.path, "dir.d/more.txt", "2\n")
			l.check(os.Remove(filepath.Join(l.path, "dir.d/untracked.txt")))
			l.write(l.path, "x.log", "stays")
		},
	},
	{
		name: "deletions, renames and a directory in place of a file",
		guest: func(l *lab) {
			l.check(os.Rename(filepath.Join(l.path, "dir/b.txt"), filepath.Join(l.path, "dir/c.txt")))
			l.check(os.Remove(filepath.Join(l.path, "a.txt")))
			l.write(l.path, "a.txt/in", "now a directory\n")
		},
	},
	{
		name: "a directory in place of a file, and a file of a directory, on the host",
		repo: func(l *lab) {
			l.check(os.RemoveAll(filepath.Join(l.repo, "dir")))
			l.write(l.repo, "dir", "now a file\n")
			l.check(os.Remove(filepath.Join(l.repo, "a.txt")))
			l.write(l.repo, "a.txt/in", "now a directory\n")
		},
		opts:  source.Options{IncludeUntracked: true},
		guest: func(l *lab) { l.write(l.path, "dir", "guest\n") },
	},
	{
		name: "binary files, the exec bit, symbolic links and empty files",
		repo: func(l *lab) {
			l.write(l.repo, "bin", strings.Repeat("\x00\xff\x01\x02", 5000))
			l.write(l.repo, "run.sh", "#!/bin/sh\n")
			l.check(os.Chmod(filepath.Join(l.repo, "run.sh"), 0o755))
			l.check(os.Symlink("a.txt", filepath.Join(l.repo, "link")))
			l.check(os.Symlink("/nowhere/at all", filepath.Join(l.repo, "dangling")))
			l.commit("empty", "")
		},
		guest: func(l *lab) {
			l.write(l.path, "bin", strings.Repeat("\x00\xfe\x01\x02", 5001))
			l.check(os.Chmod(filepath.Join(l.path, "a.txt"), 0o755))
			l.check(os.Chmod(filepath.Join(l.path, "run.sh"), 0o644))
			l.check(os.Remove(filepath.Join(l.path, "link")))
			l.check(os.Symlink("dir/b.txt", filepath.Join(l.path, "link")))
			l.write(l.path, "empty-too", "")
			l.check(os.Remove(filepath.Join(l.path, "dangling")))
			l.write(l.path, "dangling", "now a file")
		},
	},
	{
		name: "names with spaces, quotes, newlines, other scripts and bytes that are no text",
		repo: func(l *lab) {
			for _, name := range []string{"a b", `q"uo'te\`, "new\nline\tand tab", "höhe/文件", "bad\xff\xfe", "-dash", ":(top)x", strings.Repeat("long/", 60) + "name"} {
				l.write(l.repo, name, name)
			}
			l.commit()
			l.write(l.repo, "bad\xff\xfe", "changed")
		},
		guest: func(l *lab) {
			l.write(l.path, "new\nline\tand tab", "guest")
			l.write(l.path, `q"uo'te\`, "guest")
			l.write(l.path, "also bad\xff", "guest")
			l.check(os.Remove(filepath.Join(l.path, "höhe/文件")))
		},
	},
	{
		name: "line ends that git converts",
		repo: func(l *lab) {
			l.git(l.repo, "config", "core.autocrlf", "true")
			l.commit(".gitattributes", "*.sh eol=lf\n*.bat eol=crlf\n*.raw -text\n", "x.sh", "1\n2\n", "x.bat", "1\r\n2\r\n", "x.raw", "1\r\n2\n", "t.txt", "1\r\n2\r\n")
			l.write(l.repo, "t.txt", "1\r\n2\r\n3\r\n")
		},
		guest: func(l *lab) {
			l.write(l.path, "x.bat", "1\r\n2\r\n3\r\n")
			l.write(l.path, "t.txt", "0\r\n1\r\n2\r\n3\r\n")
			l.write(l.path, "x.raw", "1\r\n2\n3\r")
		},
	},
	{
		name: "commits made in the guest, amended, with changes on top",
		guest: func(l *lab) {
			l.write(l.path, "c1", "1\n")
			l.git(l.path, "add", "-A")
			l.git(l.path, "commit", "-qm", "one")
			l.write(l.path, "c1", "2\n")
			l.git(l.path, "commit", "-qa", "--amend", "-m", "two")
			l.write(l.path, "staged", "1\n")
			l.git(l.path, "add", "staged")
			l.write(l.path, "untracked", "1\n")
		},
	},
	{
		name: "a branch and a merge in the guest",
		guest: func(l *lab) {
			l.git(l.path, "checkout", "-q", "-b", "side")
			l.write(l.path, "side", "1\n")
			l.git(l.path, "add", "-A")
			l.git(l.path, "commit", "-qm", "side")
			l.git(l.path, "checkout", "-q", "main")
			l.write(l.path, "a.txt", "main\n")
			l.git(l.path, "commit", "-qam", "main")
			l.git(l.path, "merge", "-q", "-m", "merge", "side")
		},
	},
	{
		name: "repositories inside the workspace, with and without a commit",
		guest: func(l *lab) {
			l.write(l.path, "plain/vendor/f", "1\n")
			l.write(l.path, "nested/f", "1\n")
			l.git(filepath.Join(l.path, "nested"), "init", "-q")
			l.write(l.path, "nested/deep/f", "1\n")
			l.git(filepath.Join(l.path, "nested/deep"), "init", "-q")
			l.git(filepath.Join(l.path, "nested/deep"), "add", "-A")
			l.git(filepath.Join(l.path, "nested/deep"), "commit", "-qm", "1")
			l.git(filepath.Join(l.path, "nested"), "add", "f")
			l.git(filepath.Join(l.path, "nested"), "commit", "-qm", "1")
			l.write(l.path, "fresh/f", "1\n")
			l.git(filepath.Join(l.path, "fresh"), "init", "-q")
		},
	},
	{
		name: "history with merges and tags, from a shallow clone",
		repo: func(l *lab) {
			l.git(l.repo, "tag", "v1")
			l.git(l.repo, "checkout", "-q", "-b", "side")
			l.commit("s", "1")
			l.git(l.repo, "tag", "-a", "-m", "v2", "v2")
			l.git(l.repo, "checkout", "-q", "main")
			for i := range 6 {
				l.commit("n", strconv.Itoa(i))
			}
			l.git(l.repo, "merge", "-q", "-m", "merge", "side")
			full := l.repo + ".full"
			l.check(os.Rename(l.repo, full))
			l.git(filepath.Dir(full), "clone", "-q", "--depth", "4", "file://"+full, l.repo)
		},
		opts:  source.Options{Depth: 3},
		guest: func(l *lab) { l.write(l.path, "n", "guest") },
	},
	{
		name: "a sparse checkout",
		repo: func(l *lab) {
			l.commit("out/side", "1", "in/side", "1")
			l.git(l.repo, "sparse-checkout", "set", "--cone", "--no-sparse-index", "in")
		},
		guest: func(l *lab) { l.write(l.path, "in/side", "2") },
	},
	{
		name: "a sparse checkout with a sparse index",
		repo: func(l *lab) {
			l.commit("out/side", "1", "in/side", "1")
			l.git(l.repo, "sparse-checkout", "set", "--cone", "--sparse-index", "in")
			l.write(l.repo, "in/side", "host")
		},
		guest: func(l *lab) { l.write(l.path, "in/side", "2") },
	},
	{
		name: "an index of version 4, split, with an untracked cache",
		repo: func(l *lab) {
			l.git(l.repo, "update-index", "--index-version", "4", "--split-index", "--untracked-cache")
			l.write(l.repo, "a.txt", "host")
			l.git(l.repo, "add", "a.txt")
		},
		guest: func(l *lab) { l.write(l.path, "dir/b.txt", "guest") },
	},
	{
		name: "a work tree of its own",
		repo: func(l *lab) {
			tree := l.repo + ".tree"
			l.git(l.repo, "worktree", "add", "-q", "-b", "other", tree)
			l.repo = tree
			l.write(l.repo, "a.txt", "host")
		},
		guest: func(l *lab) { l.write(l.path, "dir/b.txt", "guest") },
	},
	{
		name: "a detached head",
		repo: func(l *lab) { l.git(l.repo, "checkout", "-q", "--detach"); l.write(l.repo, "a.txt", "host") },
		guest: func(l *lab) {
			l.write(l.path, "a.txt", "guest")
		},
	},
	{
		name: "files that git is told to leave alone",
		repo: func(l *lab) {
			l.git(l.repo, "update-index", "--assume-unchanged", "a.txt")
			l.git(l.repo, "update-index", "--skip-worktree", "dir/b.txt")
			l.write(l.repo, "a.txt", "local")
			l.write(l.repo, "dir/b.txt", "local")
		},
		guest: func(l *lab) { l.write(l.path, "a.txt", "guest"); l.write(l.path, "dir/b.txt", "guest") },
	},
	{
		name: "a clone that was never checked out",
		repo: func(l *lab) {
			full := l.repo + ".full"
			l.check(os.Rename(l.repo, full))
			l.git(filepath.Dir(full), "clone", "-q", "--no-checkout", full, l.repo)
		},
		guest: func(l *lab) { l.write(l.path, "a.txt", "guest") },
	},
}

func TestRoundTrip(t *testing.T) {
	for _, trip := range trips {
		for _, noGit := range []bool{false, true} {
			name := trip.name
			if noGit {
				name += ", without git in the guest"
			}
			t.Run(name, func(t *testing.T) {
				l := newLab(t)
				l.commit("a.txt", "a\n", "dir/b.txt", "b\n")
				if trip.repo != nil {
					trip.repo(l)
				}
				l.noGit = noGit
				w := l.carryIn(trip.opts)
				l.sameFiles(l.path, l.repo, append(trip.apart, "x.log")...)
				if len(trip.apart) == 0 {
					l.sameStatus()
				}
				if s := l.status(w); s.Changed || s.Git == noGit {
					t.Fatalf("status before any change: %+v", s)
				}
				if trip.guest != nil {
					trip.guest(l)
					if s := l.status(w); !s.Changed {
						t.Errorf("status after the change: %+v", s)
					}
				}
				l.carryBack(w)
				l.sameFiles(l.repo, l.path, trip.apart...)
			})
		}
	}
}
