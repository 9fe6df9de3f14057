// Package steps knows what a recipe of an image may be, what tells two of them apart, and how one is followed in a guest.
package steps

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/frame"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/opstate"
)

// variable is what the name of an environment variable may be (POSIX.1-2017, base definitions, 8.1).
var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Check checks a request: paths are absolute, variables have names, and every secret that a step wants is there and the other way round.
// Errors are of kind invalid.
func Check(p api.ImageRecipe) error {
	if p.Base == "" {
		return errkind.WithHint(errkind.New(api.KindInvalid, "the recipe names no base image"), `begin it with a line such as base = "debian"`)
	}
	for _, e := range p.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || !variable.MatchString(name) {
			return errkind.WithHint(errkind.New(api.KindInvalid, "bad environment entry %q", e), "write it as NAME=VALUE")
		}
	}
	for _, f := range p.Files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
			return errkind.New(api.KindInvalid, "the path %q of a file is not that of a file, absolute and clean", f.Path)
		}
		if f.Mode&^0o7777 != 0 {
			return errkind.New(api.KindInvalid, "the mode %o of file %q has more than permissions", f.Mode, f.Path)
		}
	}
	return checkSecrets(p)
}

func checkSecrets(p api.ImageRecipe) error {
	wanted := map[string]bool{}
	for i, s := range p.Steps {
		if strings.TrimSpace(s.Run) == "" {
			return errkind.New(api.KindInvalid, "step %d runs nothing", i+1)
		}
		for _, id := range s.Secrets {
			if !slices.ContainsFunc(p.Secrets, func(s api.RecipeSecret) bool { return s.ID == id }) {
				return errkind.WithHint(errkind.New(api.KindInvalid, "step %d wants the secret %q, which was not given", i+1, id),
					"give it with --secret id=%s,src=FILE", id)
			}
			wanted[id] = true
		}
	}
	for _, s := range p.Secrets {
		if !variable.MatchString(s.ID) {
			return errkind.New(api.KindInvalid, "the id %q of a secret is no name of a variable", s.ID)
		}
		if !wanted[s.ID] {
			return errkind.New(api.KindInvalid, "no step wants the secret %q", s.ID)
		}
		if bytes.IndexByte(s.Value, 0) >= 0 {
			return errkind.New(api.KindInvalid, "the secret %q has a zero byte, which no variable can hold", s.ID)
		}
	}
	return nil
}

// Key is what an image made by p on the image base is: sha256:HEX over everything that its content follows from. The values of
// secrets are not in it.
func Key(p api.ImageRecipe, base string) string {
	b, err := json.Marshal(struct {
		Base  string
		Root  int64
		Env   []string
		User  string
		Files []api.RecipeFile
		Steps []api.RecipeStep
	}{base, p.RootSize, p.Env, p.User, p.Files, p.Steps})
	if err != nil {
		panic(err) // strings and numbers
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Follow puts the files of p into a guest, runs its steps there, and tells the disks which blocks are free, if the guest has fstrim.
// What the steps say is copied to log. A step that fails is an error of kind guest, with the end of what it said.
func Follow(ctx context.Context, conn *guest.Conn, p api.ImageRecipe, log io.Writer, r opstate.Reporter) error {
	if len(p.Files) > 0 {
		r.Stage("copy files")
		if err := put(ctx, conn, p.Files); err != nil {
			return err
		}
	}
	for i, s := range p.Steps {
		title, _, _ := strings.Cut(strings.TrimSpace(s.Run), "\n")
		r.Stage(fmt.Sprintf("step %d/%d: %s", i+1, len(p.Steps), title))
		spec := guestapi.ExecSpec{Argv: []string{"/bin/sh", "-ec", s.Run}, Env: environment(p, s), Cwd: "/", User: p.User}
		if err := execute(ctx, conn, spec, log); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	r.Stage("trim disks")
	err := execute(ctx, conn, guestapi.ExecSpec{Argv: []string{"/bin/sh", "-c", "command -v fstrim >/dev/null || exit 0; fstrim / && fstrim /root"}, Cwd: "/"}, log)
	if errkind.Is(err, api.KindGuest) {
		_, err = fmt.Fprintln(log, "banger: the image is larger than it needs to be:", err)
	}
	return err
}

// environment is that of a step: the recipe's, and the secrets that it wants.
func environment(p api.ImageRecipe, s api.RecipeStep) []string {
	env := slices.Clone(p.Env)
	for _, secret := range p.Secrets {
		if slices.Contains(s.Secrets, secret.ID) {
			env = append(env, secret.ID+"="+strings.TrimRight(string(secret.Value), "\n"))
		}
	}
	return env
}

// put writes files, which belong to root.
func put(ctx context.Context, conn *guest.Conn, files []api.RecipeFile) error {
	s, err := conn.Open(ctx, guestapi.MethodTarIn, guestapi.TarIn{Path: "/", NumericOwner: true}, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { s.Close() })()
	frames := frame.NewWriter(s)
	t := tar.NewWriter(frames.Stream(frame.Stdin))
	for _, f := range files {
		hdr := tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(f.Path, "/"), Mode: f.Mode, Size: int64(len(f.Content))}
		if err := t.WriteHeader(&hdr); err != nil {
			return err
		}
		if _, err := t.Write(f.Content); err != nil {
			return gone(ctx, err)
		}
	}
	if err := errors.Join(t.Close(), frames.Write(frame.StdinEOF, nil)); err != nil {
		return gone(ctx, err)
	}
	return gone(ctx, guest.Receive(io.Discard, s))
}

// execute runs a command in the guest to its end.
func execute(ctx context.Context, conn *guest.Conn, spec guestapi.ExecSpec, log io.Writer) error {
	s, err := conn.Open(ctx, guestapi.MethodExec, spec, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { s.Close() })()
	var said tail
	frames := frame.NewReader(s)
	for {
		t, payload, err := frames.Next()
		switch {
		case err != nil:
			return gone(ctx, errkind.New(api.KindGuest, "the guest ended in the middle: %w", err))
		case t == frame.Stdout, t == frame.Stderr:
			said.add(payload)
			if _, err := log.Write(payload); err != nil {
				return err
			}
		case t == frame.Exit:
			return said.failure(payload)
		}
	}
}

// gone returns why ctx ended, where it did, in place of err.
func gone(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// tail is the end of what a command said.
type tail []byte

const tailSize = 2 << 10

func (t *tail) add(p []byte) {
	*t = append(*t, p...)
	*t = (*t)[max(0, len(*t)-tailSize):]
}

// failure returns the failure that an exit frame's payload reports, or nil.
func (t tail) failure(payload []byte) error {
	var st frame.ExitStatus
	if err := json.Unmarshal(payload, &st); err != nil {
		return errkind.New(api.KindGuest, "bad exit frame: %w", err)
	}
	switch {
	case st.Error != "":
		return errkind.New(api.KindGuest, "%s", st.Error)
	case st.Code != 0:
		return errkind.New(api.KindGuest, "exit status %d; it said:\n%s", st.Code, bytes.TrimSpace(t))
	}
	return nil
}
