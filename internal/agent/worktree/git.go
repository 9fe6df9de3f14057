package worktree

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/agent/proc"
	"github.com/banger-vm/banger/internal/errkind"
)

// git is the guest's git on one workspace.
type git struct {
	run  Runner
	path string
	env  []string
}

// gitConfig goes with every command. Compression is off because objects made here live for seconds, and large files are
// streamed because the guest may have little memory. Filters of git-lfs would leave a file's content behind.
var gitConfig = []string{
	"core.hooksPath=/dev/null", "core.fsmonitor=false", "core.untrackedCache=false", "core.splitIndex=false",
	"core.safecrlf=false", "core.compression=0", "core.looseCompression=0", "core.bigFileThreshold=16m", "gc.auto=0",
	"maintenance.auto=false", "submodule.recurse=false", "advice.addEmbeddedRepo=false", "index.version=2",
	"filter.lfs.process=", "filter.lfs.clean=", "filter.lfs.smudge=", "filter.lfs.required=false",
}

// newGit returns git on the workspace at path. That the repository is named, not found, keeps git from asking who owns it.
func (s *service) newGit(path string) git {
	return git{run: s.run, path: path, env: append(slices.Clip(s.env),
		"GIT_DIR="+filepath.Join(path, ".git"), "GIT_WORK_TREE="+path, "GIT_OPTIONAL_LOCKS=0", "GIT_TERMINAL_PROMPT=0",
		"GIT_LITERAL_PATHSPECS=1", "LC_ALL=C")}
}

// with returns g with more environment variables; a later one wins.
func (g git) with(env ...string) git {
	merged, err := proc.MergeEnv(g.env, env)
	if err != nil {
		panic(err) // NAME=VALUE, both ours
	}
	g.env = merged
	return g
}

func (g git) spec(args []string) proc.Spec {
	argv := []string{"git", "--no-pager"}
	for _, kv := range gitConfig {
		argv = append(argv, "-c", kv)
	}
	return proc.Spec{Argv: append(argv, args...), Env: g.env, Dir: g.path}
}

// output runs git and returns what it printed, without the newline at the end.
func (g git) output(ctx context.Context, args ...string) (string, error) {
	out, err := g.run.Output(ctx, g.spec(args))
	return string(bytes.TrimSuffix(out, []byte("\n"))), err
}

// list is output of a command that ends each item with a NUL.
func (g git) list(ctx context.Context, args ...string) ([]string, error) {
	out, err := g.output(ctx, args...)
	if err != nil || out == "" {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(out, "\x00"), "\x00"), nil
}

// stream runs git with its standard output going to w.
func (g git) stream(ctx context.Context, w io.Writer, args ...string) error {
	spec := g.spec(args)
	spec.Stdout = w
	_, err := g.run.Output(ctx, spec)
	return err
}

// feed runs git with the file in as its standard input.
func (g git) feed(ctx context.Context, in *os.File, args ...string) error {
	spec := g.spec(args)
	spec.Stdin = in
	_, err := g.run.Output(ctx, spec)
	return err
}

// failed reports whether git ran and ended with a failure.
func failed(err error) bool {
	var out *proc.OutputError
	return errors.As(err, &out)
}

// isMissing reports whether the guest has no git.
func isMissing(err error) bool {
	var exec *proc.ExecError
	return errors.As(err, &exec) && errkind.Is(err, api.KindNotFound)
}

// scratch returns g with an object directory and an index of its own in the directory tmp. The index is a copy.
func (g git) scratch(tmp string) (git, error) {
	info := filepath.Join(tmp, "objects", "info")
	if err := os.MkdirAll(info, 0o700); err != nil {
		return g, err
	}
	// In quotes a path may contain anything (gitrepository-layout(5), objects/info/alternates).
	alternates := quoted(filepath.Join(g.path, ".git", "objects")) + "\n"
	if err := os.WriteFile(filepath.Join(info, "alternates"), []byte(alternates), 0o600); err != nil {
		return g, err
	}
	own := filepath.Join(tmp, "index")
	if err := copyIndex(own, filepath.Join(g.path, ".git", "index")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return g, err
	}
	return g.with("GIT_OBJECT_DIRECTORY="+filepath.Join(tmp, "objects"), "GIT_INDEX_FILE="+own), nil
}

// copyIndex copies an index with its modification time, which git compares with the files' (racy-git).
func copyIndex(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	fi, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close(), os.Chtimes(to, fi.ModTime(), fi.ModTime()))
}

// enough is the free space that a private directory should have; where no place has it the one with most is taken, since
// exporting must work above all in a guest that has filled its disk.
const enough = 256 << 20

// scratchDir makes a private directory.
func (g git) scratchDir() (string, error) {
	var best string
	var most uint64
	for _, dir := range []string{filepath.Join(g.path, ".git"), os.TempDir(), "/run", "/dev/shm"} {
		var st unix.Statfs_t
		if unix.Access(dir, unix.W_OK) != nil || unix.Statfs(dir, &st) != nil {
			continue
		}
		if free := st.Bavail * uint64(st.Bsize); best == "" || free > most {
			best, most = dir, free
		}
		if most >= enough {
			break
		}
	}
	return os.MkdirTemp(best, "banger-scratch-")
}
