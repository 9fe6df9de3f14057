// Package source reads a git repository of the user's and streams it into a guest.
//
// [Inspect] looks at a repository and refuses what cannot be carried. [Open] fixes the state to carry: it finds what
// differs from HEAD and computes the tree of it. [Source.Plan] lists it, [Source.Stream] sends it.
//
// # What is carried
//
// The working tree's files as they are on disk: tracked ones, untracked ones on demand, ignored ones never. HEAD's history
// to a depth, the tags in it, the upstream's last known commit. The user's index as it is, so that staged changes stay
// staged. Of the configuration: identity, remotes without passwords, the branch's upstream, and what decides how files are
// read (line ends, symbolic links, ignore rules, sparse checkout).
//
// Three trees matter. HEAD's. The index's. And the base tree: the index's with the working tree's changes, and with the
// untracked files where those go too. The base tree is the exact state that was carried in, and every export is made
// against it; on a clean tree the three are one.
//
// Filters (LFS and others) are not run on what is carried: a file that git holds clean is known by the id that git has for
// it, a changed one by the id of its bytes. The guest's configuration switches the same filters off, so that both sides
// give one file one id.
//
// # The stream
//
// One GNU tar, in this order:
//
//	.git/index          the index, as git wrote it, version 2 or 3; absent where the repository has none
//	.git/banger-index   the index of the base tree, where that is not the index's own
//	files               sorted by path, byte by byte; the user name "clean" marks one whose content is what .git/index has
//	.git/banger-flagged paths, each ended by a NUL, that git was told not to look at; absent where there are none
//	.git/...            pack with its index, shallow, packed-refs, info, config, and HEAD at the very end
//
// The stat data in both index files is the host's and means nothing. The agent overwrites it with that of the files it has
// just written, for the marked ones in the first and for all in the second, so that git in the guest finds every file
// unchanged without reading one.
//
// Nothing is written to the user's repository. Index, objects and pack are made in a private directory, which [Source.Close]
// removes.
package source

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/workspace/gitcmd"
)

// DefaultDepth is how many generations of commits go along.
const DefaultDepth = 50

// Options says what to carry.
type Options struct {
	// Branch is the branch that is checked out in the guest. Default: the one that is checked out here, or From if that
	// names a branch. A name that is taken here by another commit is refused.
	Branch string
	// From is a commit, by any of its names, to carry instead of the working tree. Changes and untracked files stay here.
	From string
	// IncludeUntracked carries untracked files too, but never ignored ones.
	IncludeUntracked bool
	// Depth is how many generations of commits to carry. Default: [DefaultDepth].
	Depth int
}

// Source is one state of a repository, ready to go. It is for one goroutine.
type Source struct {
	repo  Repo
	git   gitcmd.Git // with private index and objects
	tmp   string
	root  string // where the files are read: the working tree, or a private checkout of Options.From
	files []file
	plan  Plan

	index     string // path of the index to carry, empty when there is none
	baseIndex string // path of the base tree's index, empty when index is that
	indexTree string // tree id of index
	// flagged are paths that git was told not to look at (git-update-index(1), --assume-unchanged and --skip-worktree). They go
	// as they are, their index entries too; only the base tree has them as any other file, so that a change in the guest
	// comes back.
	flagged []string
	intent  bool // the index has entries of git add --intent-to-add, which name the empty blob

	pack *pack // nil before Pack
}

// Plan is what would go.
type Plan struct {
	Commit    string   // the commit that HEAD will be
	Branch    string   // empty when detached
	BaseTree  string   // tree id of exactly what goes
	Files     []File   // in the order they go
	Bytes     int64    // sum of the files' sizes; history comes on top
	Changed   int      // tracked files that differ from the index or, staged, from HEAD
	Untracked int      // untracked files, not counting ignored ones, whether they go or not
	Notes     []string // what stays behind or differs in the guest, a sentence each
}

// File is one file of a Plan. Path is relative to the repository's root, and may hold any byte but NUL.
type File struct {
	Path string
	Size int64
}

// file is one file to carry, as it was when the state was fixed.
type file struct {
	File
	mode  uint32 // git's: 100644, 100755, 120000
	mtime time.Time
	ino   uint64
	clean bool // the content is what the index has
}

// Open fixes the state of r that is to be carried. The caller must Close it.
func Open(ctx context.Context, r Repo) (_ *Source, err error) {
	tmp, err := os.MkdirTemp("", "banger-workspace-")
	if err != nil {
		return nil, err
	}
	s := &Source{repo: r, tmp: tmp, root: r.Root, index: filepath.Join(tmp, "index")}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.git, err = gitcmd.At(r.Root).Scratch(tmp, r.objects); err != nil {
		return nil, err
	}
	// Where the user runs git-lfs as a filter, comparing a file stores it; not in the user's repository.
	s.git = s.git.Set("lfs.storage=" + filepath.Join(tmp, "lfs"))
	if err := s.fix(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Plan returns what goes.
func (s *Source) Plan() Plan { return s.plan }

// Workspace returns the record of the workspace at guestPath, as it is to be stored before the stream begins.
func (s *Source) Workspace(guestPath string) api.Workspace {
	return api.Workspace{
		GuestPath: guestPath, Source: s.repo.Root, Branch: s.plan.Branch,
		BaseCommit: s.plan.Commit, BaseTree: s.plan.BaseTree, Prepared: time.Now(),
	}
}

// Close removes what Open and Pack have made.
func (s *Source) Close() error { return os.RemoveAll(s.tmp) }
