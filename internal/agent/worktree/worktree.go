// Package worktree is the guest's side of workspaces: it unpacks one, says what has changed in it, and exports the changes.
//
// # Words
//
// A workspace is a git repository below one directory. Its base tree is the tree id of exactly what was carried in. The
// present tree is that of the working tree now: tracked and untracked files, not ignored ones. Changed means that they
// differ, or that there are commits which neither the present HEAD nor the base contains. The stream that carries a
// workspace in is described in internal/workspace/source.
//
// # Invariants
//
// Nothing is unpacked outside the workspace's directory: each directory on the way to a file is opened relative to its
// parent, never through a symbolic link, and each file is created anew. An unpacking that fails removes what it made.
//
// Looking changes nothing: index and objects that git needs for the present tree are made in a private directory and
// removed. Git runs without hooks, and without git-lfs, which would keep a file's content to itself.
//
// Git is used where the guest has it, and nothing else is needed. Without it unpacking is the same; status compares stat
// data with those that were noted at unpacking, and errs on the side of changed; a patch becomes a tar of the changed files,
// of which the host makes the patch.
//
// The calls share no state and may run at the same time.
package worktree

import (
	"bufio"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/agent/proc"
	"github.com/banger-vm/banger/internal/errkind"
)

// Runner runs a command to its end, as [proc.Supervisor.Output] does.
type Runner interface {
	Output(ctx context.Context, spec proc.Spec) ([]byte, error)
}

// service answers the calls. env is the environment of git.
type service struct {
	run Runner
	env []string
}

// Handlers returns the handlers of the workspace methods. Git is started through run, as root.
func Handlers(run Runner) map[string]call.Handler {
	root := proc.User{Name: "root", Home: "/root", Shell: "/bin/sh"}
	if u, err := proc.LookupUser(""); err == nil {
		root = u
	}
	return handlers(&service{run: run, env: root.Environ(false)})
}

func handlers(s *service) map[string]call.Handler {
	return map[string]call.Handler{
		guestapi.MethodWorkIn:   s.in,
		guestapi.MethodWorkStat: s.stat,
		guestapi.MethodWorkOut:  s.out,
	}
}

// checkPath checks the path of a workspace.
func checkPath(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" || strings.IndexByte(path, 0) >= 0 {
		return errkind.WithHint(errkind.New(api.KindInvalid, "bad workspace path %q", path), "give an absolute path, such as /root/src")
	}
	return nil
}

func (s *service) in(ctx context.Context, c *call.Call) (any, error) {
	var p guestapi.WorkIn
	if err := c.Params(&p); err != nil {
		return nil, err
	}
	if err := checkPath(p.Path); err != nil {
		return nil, err
	}
	u, err := newUnpacker(p.Path)
	if err != nil {
		return nil, err
	}
	if err := c.Accept(nil); err != nil {
		return nil, errors.Join(err, u.undo())
	}
	// The stream reads until the host has sent everything: a tar's padding may follow the end that tar.Reader sees.
	in := &stdin{frames: frame.NewReader(c)}
	err = u.unpack(ctx, in)
	if err == nil {
		_, err = io.Copy(io.Discard, in)
	}
	if err != nil {
		err = errors.Join(err, u.undo())
	}
	return nil, errors.Join(err, frame.NewWriter(c).WriteJSON(frame.Exit, call.ExitStatus(err)))
}

// stdin is the bytes of the stdin frames of a stream. It ends with io.EOF at the frame that says so; a connection that is
// cut before that is io.ErrUnexpectedEOF.
type stdin struct {
	frames *frame.Reader
	rest   []byte
	err    error
}

func (s *stdin) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		t, payload, err := s.frames.Next()
		switch {
		case errors.Is(err, io.EOF):
			s.err = io.ErrUnexpectedEOF
		case err != nil:
			s.err = err
		case t == frame.StdinEOF:
			s.err = io.EOF
		case t == frame.Stdin:
			s.rest = payload
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *service) stat(ctx context.Context, c *call.Call) (any, error) {
	var ref guestapi.WorkRef
	if err := c.Params(&ref); err != nil {
		return nil, err
	}
	now, err := s.look(ctx, ref)
	if err != nil {
		return nil, err
	}
	return now.status, now.close()
}

func (s *service) out(ctx context.Context, c *call.Call) (any, error) {
	var p guestapi.WorkOut
	if err := c.Params(&p); err != nil {
		return nil, err
	}
	now, err := s.look(ctx, p.WorkRef)
	if err != nil {
		return nil, err
	}
	export, format, err := now.exporter(p)
	if err == nil {
		err = c.Accept(guestapi.WorkOutReply{Format: format, Status: now.status})
	}
	if err != nil {
		return nil, errors.Join(err, now.close())
	}
	frames := frame.NewWriter(c)
	stdout := bufio.NewWriterSize(frames.Stream(frame.Stdout), frame.MaxPayload)
	err = export(ctx, stdout)
	err = errors.Join(err, stdout.Flush(), now.close())
	return nil, errors.Join(err, frames.WriteJSON(frame.Exit, call.ExitStatus(err)))
}
