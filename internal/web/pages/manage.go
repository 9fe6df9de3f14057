package pages

import (
	"context"
	"net/http"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
)

func (s *Site) imageRoutes(mux *http.ServeMux) {
	mux.Handle("GET /images", s.page("images", "Images", func(ctx context.Context, c *client.Client, _ *http.Request) (any, error) {
		return c.ImageList(ctx)
	}))
	mux.Handle("POST /images", s.action(func(ctx context.Context, c *client.Client, r *http.Request) (string, error) {
		f := form{r: r}
		p := api.ImageBuild{Name: f.text("name"), Suite: f.text("suite"), Packages: f.list("packages"), RootSize: f.bytes("root"), Replace: f.has("replace")}
		if f.err != nil {
			return "", f.err
		}
		op, err := c.ImageBuildBegin(ctx, p)
		return "/operations/" + op.ID, err
	}))
	mux.Handle("POST /images/{ref}/delete", s.action(func(ctx context.Context, c *client.Client, r *http.Request) (string, error) {
		return "/images", c.ImageDelete(ctx, r.PathValue("ref"))
	}))
	mux.Handle("GET /kernels", s.page("kernels", "Kernels", func(ctx context.Context, c *client.Client, _ *http.Request) (any, error) {
		return c.KernelList(ctx)
	}))
	mux.Handle("POST /kernels", s.action(func(ctx context.Context, c *client.Client, r *http.Request) (string, error) {
		f := form{r: r}
		op, err := c.KernelImportBegin(ctx, api.KernelImport{Name: f.text("name"), Deb: f.text("deb"), Host: f.has("host")})
		return "/operations/" + op.ID, err
	}))
	mux.Handle("POST /kernels/{ref}/delete", s.action(func(ctx context.Context, c *client.Client, r *http.Request) (string, error) {
		return "/kernels", c.KernelDelete(ctx, r.PathValue("ref"))
	}))
}

func (s *Site) operationRoutes(mux *http.ServeMux) {
	mux.Handle("GET /operations", s.page("operations", "Operations", func(ctx context.Context, c *client.Client, _ *http.Request) (any, error) {
		ops, err := c.OperationList(ctx)
		return ops[:min(len(ops), maxOperations)], err
	}))
	mux.Handle("GET /operations/{id}", s.page("operation", "Operation", func(ctx context.Context, c *client.Client, r *http.Request) (any, error) {
		return c.OperationGet(ctx, r.PathValue("id"))
	}))
	mux.Handle("POST /operations/{id}/cancel", s.action(func(ctx context.Context, c *client.Client, r *http.Request) (string, error) {
		return "/operations/" + r.PathValue("id"), c.OperationCancel(ctx, r.PathValue("id"))
	}))
}

// maxOperations is how many operations the page lists.
const maxOperations = 200
