package pages

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/errkind"
)

func (s *Site) workspaceRoutes(mux *http.ServeMux) {
	mux.Handle("GET /vms/{ref}/workspace", s.page("workspace", "workspace", func(ctx context.Context, c *client.Client, r *http.Request) (any, error) {
		return c.VMGet(ctx, r.PathValue("ref"))
	}))
	mux.Handle("GET /vms/{ref}/workspace/status", s.fragment("workspace", "status", workspaceStatus))
	mux.Handle("GET /vms/{ref}/workspace/diff", s.fragment("workspace", "diff", workspaceDiff))
	mux.Handle("GET /vms/{ref}/workspace/export", http.HandlerFunc(s.export))
}

func workspaceStatus(ctx context.Context, c *client.Client, r *http.Request) (any, error) {
	return c.WorkStatus(ctx, r.PathValue("ref"))
}

// maxDiff is how much of a diff is shown, in bytes.
const maxDiff = 512 << 10

// diffView is the diff as it is now, a line an element.
type diffView struct {
	Lines []diffLine
	Cut   bool
	NoGit bool // the guest cannot make one
}

// diffLine is a line of a diff; Kind is its class in the style sheet: add, del, hunk, file, or empty.
type diffLine struct{ Kind, Text string }

func workspaceDiff(ctx context.Context, c *client.Client, r *http.Request) (any, error) {
	reply, patch, err := c.WorkExport(ctx, api.WorkExport{Ref: api.Ref{Ref: r.PathValue("ref")}, Format: "patch"})
	if err != nil {
		return nil, err
	}
	defer patch.Close()
	if reply.Format != "patch" {
		return diffView{NoGit: true}, nil
	}
	text, err := io.ReadAll(io.LimitReader(patch, maxDiff+1))
	if err != nil {
		return nil, err
	}
	v := diffView{Cut: len(text) > maxDiff}
	var cut lineCutter
	for line := range strings.Lines(cut.take(text[:min(len(text), maxDiff)])) {
		v.Lines = append(v.Lines, diffLine{diffKind(line), line})
	}
	return v, nil
}

func diffKind(line string) string {
	switch {
	case strings.HasPrefix(line, "diff --git"), strings.HasPrefix(line, "--- "), strings.HasPrefix(line, "+++ "):
		return "file"
	case strings.HasPrefix(line, "@@"):
		return "hunk"
	case strings.HasPrefix(line, "+"):
		return "add"
	case strings.HasPrefix(line, "-"):
		return "del"
	}
	return ""
}

// export sends a workspace's changes as a download. Whether the browser has stored it nobody says, so the daemon goes on taking
// the changes for unexported. A guest without git sends its files as a tar.
func (s *Site) export(w http.ResponseWriter, r *http.Request) {
	c, err := s.c.Connect(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v, err := c.VMGet(r.Context(), r.PathValue("ref"))
	if err == nil && v.Workspace == nil {
		err = errkind.New(api.KindNotFound, "VM %q has no workspace", v.Name)
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	reply, body, err := c.WorkExport(r.Context(), api.WorkExport{Ref: api.Ref{Ref: v.ID}, Format: r.FormValue("format")})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer body.Close()
	name := fmt.Sprintf("%s-%s.%s", path.Base(v.Workspace.GuestPath), v.Name, reply.Format)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": Clean(name)}))
	err = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	if err == nil {
		_, err = io.Copy(w, body)
	}
	if err != nil {
		s.c.Log.Debug("send an export to a browser", "vm", v.Name, "err", err)
		panic(http.ErrAbortHandler) // so that the browser does not take half of it for the whole
	}
}
