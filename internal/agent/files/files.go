// Package files carries files in and out of the guest as tar streams, inside frames: stdin frames carry a tar in, stdout
// frames carry one out, and the exit frame says how it went.
//
// What is unpacked stays below the path that was asked for: names that would leave it, also through a symbolic link, fail
// the copy (os.Root). Device nodes are refused. A file that could not be written whole is removed.
package files

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/agent/call"
	"github.com/banger-vm/banger/internal/errkind"
)

// Handlers returns the agent's methods that this package serves.
func Handlers() map[string]call.Handler {
	return map[string]call.Handler{
		guestapi.MethodTarIn: tarIn, guestapi.MethodTarOut: tarOut, guestapi.MethodStat: stat,
	}
}

func stat(_ context.Context, c *call.Call) (any, error) {
	var p guestapi.TarOut
	if err := c.Params(&p); err != nil {
		return nil, err
	}
	if err := checkPath(p.Path); err != nil {
		return nil, err
	}
	st, err := os.Stat(p.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return guestapi.Stat{}, nil
	}
	if err != nil {
		return nil, err
	}
	return guestapi.Stat{Exists: true, Dir: st.IsDir(), Size: st.Size()}, nil
}

func checkPath(path string) error {
	if filepath.IsAbs(path) {
		return nil
	}
	return errkind.WithHint(errkind.New(api.KindInvalid, "guest path %q is not absolute", path), "give a path that begins with /")
}

func tarIn(_ context.Context, c *call.Call) (any, error) {
	var p guestapi.TarIn
	if err := c.Params(&p); err != nil {
		return nil, err
	}
	if err := checkPath(p.Path); err != nil {
		return nil, err
	}
	x, err := newExtractor(p)
	if err != nil {
		return nil, err
	}
	defer x.close()
	if err := c.Accept(nil); err != nil {
		return nil, err
	}
	return nil, finish(c, x.extract(&stdin{frames: frame.NewReader(c)}))
}

func tarOut(_ context.Context, c *call.Call) (any, error) {
	var p guestapi.TarOut
	if err := c.Params(&p); err != nil {
		return nil, err
	}
	if err := checkPath(p.Path); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(p.Path); err != nil {
		return nil, errkind.New(api.KindNotFound, "%w", err)
	}
	if err := c.Accept(nil); err != nil {
		return nil, err
	}
	return nil, finish(c, pack(frame.NewWriter(c).Stream(frame.Stdout), p.Path))
}

// finish sends the exit frame of a copy.
func finish(c *call.Call, err error) error {
	return errors.Join(err, frame.NewWriter(c).WriteJSON(frame.Exit, call.ExitStatus(err)))
}

// stdin reads the payload of stdin frames. A connection that ends without the mark of the input's end was cut.
type stdin struct {
	frames *frame.Reader
	rest   []byte
	ended  bool
}

func (s *stdin) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.ended {
			return 0, io.EOF
		}
		t, payload, err := s.frames.Next()
		switch {
		case errors.Is(err, io.EOF):
			return 0, io.ErrUnexpectedEOF
		case err != nil:
			return 0, err
		case t == frame.StdinEOF:
			s.ended = true
		case t == frame.Stdin:
			s.rest = payload
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}
