package source

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/workspace/gitcmd"
)

// Repo is a repository that can be carried.
type Repo struct {
	Root      string // of the working tree, absolute
	Commit    string // what HEAD will be in the guest
	Branch    string // checked out in the guest; empty when detached
	Origin    string // the remote's URL without a password; empty when there is none
	UserName  string // identity for commits; may be empty
	UserEmail string
	LFS       bool // git-lfs is used
	Shallow   bool // the repository itself has no full history
	Sparse    bool // a sparse checkout

	opts    Options
	partial bool   // objects are missing here until git fetches them
	from    bool   // a commit is carried, not the working tree
	local   string // the branch here that Branch was taken from; empty when it is a new one
	config  config
	objects string            // path of the object directory
	paths   map[string]string // paths of git's own files, by name below .git
}

// gitFiles are the files of .git that are read here, each wherever this repository has it (gitrepository-layout(5)).
var gitFiles = []string{"index", "shallow", "info/exclude", "info/attributes", "info/sparse-checkout"}

// Inspect looks at the repository that path is in. A path that does not exist or is in no repository is of kind not-found;
// a repository that cannot be carried is of kind precondition; a bad option is of kind invalid. Each says what to do.
func Inspect(ctx context.Context, path string, opts Options) (Repo, error) {
	if opts.Depth < 0 {
		return Repo{}, errkind.New(api.KindInvalid, "history depth %d is negative", opts.Depth)
	}
	if opts.Depth == 0 {
		opts.Depth = DefaultDepth
	}
	r := Repo{opts: opts}
	if err := r.find(ctx, path); err != nil {
		return Repo{}, err
	}
	git := gitcmd.At(r.Root)
	if err := r.configure(ctx, git); err != nil {
		return Repo{}, err
	}
	if err := r.choose(ctx, git); err != nil {
		return Repo{}, err
	}
	return r, nil
}

// find fills in where things are.
func (r *Repo) find(ctx context.Context, path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return errkind.New(api.KindNotFound, "open repository: %w", err)
	}
	if !fi.IsDir() {
		path = filepath.Dir(path)
	}
	git := gitcmd.At(path)
	kind, err := git.Line(ctx, "rev-parse", "--is-bare-repository", "--is-inside-work-tree")
	if err != nil {
		return notRepository(path, err)
	}
	if kind != "false\ntrue" {
		return errkind.WithHint(errkind.New(api.KindPrecondition, "%q is in a repository without a working tree", path),
			"clone it, and run banger in the clone")
	}
	args := []string{"rev-parse", "--path-format=absolute", "--show-toplevel", "--git-path", "objects",
		"--show-object-format", "--is-shallow-repository"}
	for _, name := range gitFiles {
		args = append(args, "--git-path", name)
	}
	out, err := git.Line(ctx, args...)
	if err != nil {
		return err
	}
	lines := strings.Split(out, "\n")
	if len(lines) != 4+len(gitFiles) {
		return errkind.New(api.KindPrecondition, "the path of the repository %q has a newline in it", path)
	}
	if format := lines[2]; format != "sha1" {
		return errkind.New(api.KindPrecondition, "the repository %q names objects by %s; only sha1 can be carried", path, format)
	}
	r.Root, r.objects, r.Shallow = lines[0], lines[1], lines[3] == "true"
	r.paths = make(map[string]string)
	for i, name := range gitFiles {
		r.paths[name] = lines[4+i]
	}
	return nil
}

// notRepository says why git found no repository at path: there is none, or git refuses the one that is there.
func notRepository(path string, cause error) error {
	if !gitcmd.Exited(cause, 128) {
		return cause
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	for dir := abs; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return errkind.WithHint(errkind.New(api.KindPermission, "git refuses the repository %q: %w", dir, cause),
				"see what `git -C %s status` says; for a directory of another user's, git has the setting safe.directory", dir)
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return errkind.WithHint(errkind.New(api.KindNotFound, "%q is in no git repository", path),
		"give the path of a repository, make one with `git init`, or leave the path out for a machine without a workspace")
}

// configure fills in what comes from the configuration.
func (r *Repo) configure(ctx context.Context, git gitcmd.Git) error {
	list, err := git.List(ctx, "config", "--list", "-z")
	if err != nil {
		return err
	}
	r.config = parseConfig(list)
	r.UserName, r.UserEmail = r.config.get("user.name"), r.config.get("user.email")
	r.Origin = stripPassword(r.config.get("remote.origin.url"))
	r.Sparse = r.config.is("core.sparsecheckout") && r.opts.From == ""
	_, r.partial = r.config["extensions.partialclone"]
	// Only for a note, so what a subdirectory's file says is not looked at.
	attributes, err := os.ReadFile(filepath.Join(r.Root, ".gitattributes"))
	r.LFS = err == nil && bytes.Contains(attributes, []byte("filter=lfs"))
	return nil
}

// choose fills in commit and branch.
func (r *Repo) choose(ctx context.Context, git gitcmd.Git) error {
	head, err := git.Line(ctx, "symbolic-ref", "-q", "HEAD")
	if err != nil && !gitcmd.Exited(err, 1) {
		return err
	}
	r.local = strings.TrimPrefix(head, "refs/heads/")
	if r.opts.From != "" {
		if err := r.chooseFrom(ctx, git); err != nil {
			return err
		}
	} else if r.Commit, err = resolve(ctx, git, "HEAD^{commit}"); err != nil {
		return err
	} else if r.Commit == "" {
		return errkind.WithHint(errkind.New(api.KindPrecondition, "the repository %q has no commit yet", r.Root),
			"make one first: `git commit --allow-empty -m start`")
	}
	r.Branch = r.local
	if want := r.opts.Branch; want != "" && want != r.local {
		return r.chooseBranch(ctx, git, want)
	}
	return nil
}

func (r *Repo) chooseFrom(ctx context.Context, git gitcmd.Git) (err error) {
	from := r.opts.From
	if !strings.HasPrefix(from, "-") {
		if r.Commit, err = resolve(ctx, git, from+"^{commit}"); err != nil {
			return err
		}
	}
	if r.Commit == "" {
		return errkind.WithHint(errkind.New(api.KindNotFound, "%q names no commit of the repository %q", from, r.Root),
			"`git branch -a` lists the branches; one that is only on the server must be fetched first")
	}
	r.from = true
	if from == "HEAD" || from == "@" {
		return nil
	}
	at, err := resolve(ctx, git, "refs/heads/"+from)
	if r.local = ""; at != "" {
		r.local = from
	}
	return err
}

// chooseBranch takes the branch want, which is new or already at the commit that goes.
func (r *Repo) chooseBranch(ctx context.Context, git gitcmd.Git, want string) error {
	if _, err := git.Output(ctx, "check-ref-format", "refs/heads/"+want); err != nil || strings.HasPrefix(want, "-") {
		return errkind.WithHint(errkind.New(api.KindInvalid, "bad branch name %q", want), "git-check-ref-format(1) has the rules")
	}
	at, err := resolve(ctx, git, "refs/heads/"+want)
	if err != nil {
		return err
	}
	if at != "" && at != r.Commit {
		return errkind.WithHint(errkind.New(api.KindExists, "the branch %q exists, and is at another commit", want),
			"choose another name, or start from that branch with --from %s", want)
	}
	r.Branch, r.local = want, ""
	if at != "" {
		r.local = want
	}
	return nil
}

// resolve returns the id that rev names, or nothing.
func resolve(ctx context.Context, git gitcmd.Git, rev string) (string, error) {
	id, err := git.Line(ctx, "rev-parse", "-q", "--verify", rev)
	if gitcmd.Exited(err, 1) || gitcmd.Exited(err, 128) {
		return "", nil
	}
	return id, err
}
