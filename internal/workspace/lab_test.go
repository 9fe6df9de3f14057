package workspace_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/agent/proc"
	"github.com/banger-vm/banger/internal/agent/worktree"
	"github.com/banger-vm/banger/internal/host"
	"github.com/banger-vm/banger/internal/workspace"
	"github.com/banger-vm/banger/internal/workspace/source"
)

// lab is one user with one repository, and a guest without a machine around it: the agent's handlers, in this process.
type lab struct {
	*testing.T
	repo  string // the user's repository
	path  string // the workspace in the guest
	noGit bool   // the guest has no git
	home  string
	sup   *proc.Supervisor
	calls []func() // each waits for a call to end
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if _, err := host.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	l := &lab{T: t, repo: filepath.Join(dir, "repo"), path: filepath.Join(dir, "guest", "src"), home: filepath.Join(dir, "home"), sup: proc.New()}
	for _, d := range []string{l.repo, l.home, filepath.Join(dir, "empty")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for k, v := range map[string]string{"HOME": l.home, "XDG_CONFIG_HOME": "", "GIT_CONFIG_NOSYSTEM": "1", "TMPDIR": dir} {
		t.Setenv(k, v)
	}
	l.write(l.home, ".gitconfig", "[user]\n\tname = Test User\n\temail = test@example.invalid\n[init]\n\tdefaultBranch = main\n")
	l.git(l.repo, "init", "-q")
	t.Cleanup(l.waitServed)
	return l
}

// waitServed hangs up on the agent and waits until it is done.
func (l *lab) waitServed() {
	for _, wait := range l.calls {
		wait()
	}
	l.calls = nil
}

// Output runs a command of the agent's in the test's home, and without git where the guest has none.
func (l *lab) Output(ctx context.Context, spec proc.Spec) ([]byte, error) {
	spec.Env, _ = proc.MergeEnv(spec.Env, []string{"HOME=" + l.home, "GIT_CONFIG_NOSYSTEM=1", "PATH=" + os.Getenv("PATH")})
	if l.noGit {
		spec.Env, _ = proc.MergeEnv(spec.Env, []string{"PATH=" + filepath.Join(filepath.Dir(l.home), "empty")})
	}
	return l.sup.Output(ctx, spec)
}

func (l *lab) git(dir string, args ...string) string {
	l.Helper()
	out, err := host.Output(l.Context(), host.Command{Argv: append([]string{"git"}, args...), Dir: dir})
	if err != nil {
		l.Fatalf("git %q in %s: %v", args, dir, err)
	}
	return string(out)
}

func (l *lab) write(dir, name, text string) {
	l.Helper()
	path := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		l.Fatal(err)
	}
}

func (l *lab) check(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// commit writes files, in pairs of name and text, and commits everything.
func (l *lab) commit(pairs ...string) {
	l.Helper()
	for i := 0; i < len(pairs); i += 2 {
		l.write(l.repo, pairs[i], pairs[i+1])
	}
	l.git(l.repo, "add", "-A")
	l.git(l.repo, "commit", "-q", "--allow-empty", "-m", "commit")
}

// call begins a call of the agent's. Closing the connection ends it.
func (l *lab) call(method string, params, result any) (net.Conn, *bufio.Reader, error) {
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = call.Serve(context.Background(), far, worktree.Handlers(l)) // what the caller sees is what counts
	}()
	l.calls = append(l.calls, func() { near.Close(); <-served })
	r := bufio.NewReader(near)
	return near, r, api.StartCall(near, r, method, params, result)
}

// exit reads frames up to the exit, with standard output to w.
func exit(r io.Reader, w io.Writer) error {
	frames := frame.NewReader(r)
	for {
		t, p, err := frames.Next()
		switch {
		case err != nil:
			return err
		case t == frame.Stdout:
			if _, err := w.Write(p); err != nil {
				return err
			}
		case t == frame.Exit:
			var s frame.ExitStatus
			if err := json.Unmarshal(p, &s); err != nil || s.Code == 0 {
				return err
			}
			return errors.New(s.Error)
		}
	}
}

// send is workspace.in with the bytes that write writes.
func (l *lab) send(write func(io.Writer) error) error {
	conn, r, err := l.call(guestapi.MethodWorkIn, guestapi.WorkIn{Path: l.path}, nil)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- exit(r, io.Discard) }()
	frames := frame.NewWriter(conn)
	if err := write(frames.Stream(frame.Stdin)); err != nil {
		conn.Close()
		return errors.Join(err, <-done)
	}
	if err := frames.Write(frame.StdinEOF, nil); err != nil {
		return errors.Join(err, <-done)
	}
	return <-done
}

func (l *lab) open(opts source.Options) (*source.Source, error) {
	repo, err := source.Inspect(l.Context(), l.repo, opts)
	if err != nil {
		return nil, err
	}
	src, err := source.Open(l.Context(), repo)
	if err == nil {
		l.Cleanup(func() { src.Close() })
	}
	return src, err
}

// carryIn carries the repository into the guest, and checks that the user's repository is left as it was.
func (l *lab) carryIn(opts source.Options) api.Workspace {
	l.Helper()
	before := l.digest(filepath.Join(l.repo, ".git"))
	src, err := l.open(opts)
	l.check(err)
	l.check(l.send(func(w io.Writer) error { return src.Stream(l.Context(), w) }))
	l.check(src.Close())
	if after := l.digest(filepath.Join(l.repo, ".git")); after != before {
		l.Error("carrying in changed the user's .git")
	}
	return src.Workspace(l.path)
}

func (l *lab) status(w api.Workspace) guestapi.WorkStatus {
	l.Helper()
	var s guestapi.WorkStatus
	_, _, err := l.call(guestapi.MethodWorkStat, guestapi.WorkRef{Path: l.path, BaseTree: w.BaseTree}, &s)
	l.check(err)
	return s
}

// export is workspace.out; it checks that the workspace's .git is left as it was.
func (l *lab) export(w api.Workspace, format string) (guestapi.WorkOutReply, []byte) {
	l.Helper()
	before := l.digest(filepath.Join(l.path, ".git"))
	var reply guestapi.WorkOutReply
	_, r, err := l.call(guestapi.MethodWorkOut, guestapi.WorkOut{
		WorkRef: guestapi.WorkRef{Path: l.path, BaseTree: w.BaseTree}, Format: format, BaseCommit: w.BaseCommit,
	}, &reply)
	l.check(err)
	var out bytes.Buffer
	l.check(exit(r, &out))
	if after := l.digest(filepath.Join(l.path, ".git")); after != before {
		l.Error("exporting changed the workspace's .git")
	}
	return reply, out.Bytes()
}

// patch exports a patch, made on whichever side can.
func (l *lab) patch(w api.Workspace) []byte {
	l.Helper()
	reply, out := l.export(w, "patch")
	if reply.Format == "patch" {
		return out
	}
	before := l.digest(filepath.Join(l.repo, ".git"))
	var patch bytes.Buffer
	l.check(workspace.PatchFromTar(l.Context(), l.repo, w.BaseTree, bytes.NewReader(out), &patch))
	if after := l.digest(filepath.Join(l.repo, ".git")); after != before {
		l.Error("making the patch changed the user's .git")
	}
	return patch.Bytes()
}

// carryBack exports a patch and applies it to the user's repository.
func (l *lab) carryBack(w api.Workspace) {
	l.Helper()
	file := filepath.Join(filepath.Dir(l.repo), "changes.patch")
	l.check(os.WriteFile(file, l.patch(w), 0o600))
	before := l.digest(filepath.Join(l.repo, ".git"))
	_, err := workspace.Apply(l.Context(), l.repo, file)
	l.check(err)
	if after := l.digest(filepath.Join(l.repo, ".git")); after != before {
		l.Error("applying changed the user's .git")
	}
}

// digest is the hash of everything below dir.
func (l *lab) digest(dir string) string {
	l.Helper()
	h := sha256.New()
	tree := l.read(dir, true)
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		fmt.Fprintf(h, "%q %q\n", name, tree[name])
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// read returns the files below dir as type, exec bit and content, by path; git's own only when asked.
func (l *lab) read(dir string, own bool) map[string]string {
	l.Helper()
	tree := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" && !own {
				return fs.SkipDir
			}
			return nil
		}
		if d.Name() == ".git" && !own {
			return nil // of a work tree of its own
		}
		rel, _ := filepath.Rel(dir, path)
		if d.Type() == fs.ModeSymlink {
			target, err := os.Readlink(path)
			tree[rel] = "link " + target
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		tree[rel] = fmt.Sprintf("%v %s", fi.Mode()&0o100 != 0, text)
		return err
	})
	l.check(err)
	return tree
}

// sameFiles checks that two directories have the same files, except those named.
func (l *lab) sameFiles(got, want string, except ...string) {
	l.Helper()
	a, b := l.read(got, false), l.read(want, false)
	for _, name := range except {
		delete(a, name)
		delete(b, name)
	}
	for _, name := range slices.Sorted(maps.Keys(b)) {
		if text, ok := a[name]; !ok || text != b[name] {
			l.Errorf("%q in %s is %.80q, want %.80q", name, got, text, b[name])
		}
		delete(a, name)
	}
	for name := range a {
		l.Errorf("%s has %q, which %s has not", got, name, want)
	}
}

// sameStatus checks that git says the same of the workspace as of the user's repository, that it is whole, and that no
// file needs reading to find it unchanged: diff-files alone compares only stat data.
func (l *lab) sameStatus() {
	l.Helper()
	raw := l.git(l.path, "diff-files", "--name-only")
	if got, want := l.git(l.path, "status", "--porcelain"), l.git(l.repo, "status", "--porcelain"); got != want {
		l.Errorf("status in the guest:\n%s\non the host:\n%s", got, want)
	}
	if want := l.git(l.path, "diff-files", "--name-only"); raw != want {
		l.Errorf("stat data is stale of:\n%s\nchanged are:\n%s", raw, want)
	}
	if got := l.git(l.path, "fsck", "--full", "--strict", "--no-dangling"); strings.TrimSpace(got) != "" {
		l.Errorf("git fsck: %s", got)
	}
	if got, want := l.git(l.path, "rev-parse", "HEAD"), l.git(l.repo, "rev-parse", "HEAD"); got != want {
		l.Errorf("HEAD is %s, want %s", got, want)
	}
}
