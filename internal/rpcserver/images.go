package rpcserver

import (
	"context"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/banger"
	"github.com/banger-vm/banger/internal/opstate"
)

func imageMethods(s Services) []Method {
	out := func(ctx context.Context, img banger.Image) (api.Image, error) {
		users, err := s.Images.Users(ctx, img.ID)
		return imageOut(img, users), err
	}
	// begin begins an operation that makes an image.
	begin := func(kind, subject string, fn func(context.Context, *opstate.Op) (banger.Image, error)) (api.OperationRef, error) {
		op := s.Ops.Begin(kind, subject, func(ctx context.Context, op *opstate.Op) (any, error) {
			img, err := fn(ctx, op)
			return api.Ref{Ref: string(img.ID)}, err
		})
		return api.OperationRef{ID: op.ID}, nil
	}
	return []Method{
		Call(Read, api.MethodImageList, "Lists images.",
			func(ctx context.Context, _ api.Empty) (api.ImageList, error) {
				images, err := s.Images.List(ctx)
				if err != nil {
					return api.ImageList{}, err
				}
				items, err := convert(ctx, images, out)
				return api.ImageList{Images: items}, err
			}),
		Call(Read, api.MethodImageGet, "Shows one image.",
			func(ctx context.Context, p api.Ref) (api.Image, error) {
				img, err := s.Images.Get(ctx, p.Ref)
				if err != nil {
					return api.Image{}, err
				}
				return out(ctx, img)
			}),
		Call(Write, api.MethodImageDelete, "Deletes an image that no VM uses.",
			func(ctx context.Context, p api.Ref) (api.Empty, error) {
				return api.Empty{}, s.Images.Delete(ctx, p.Ref)
			}),
		Call(Write, api.MethodImageBuildBegin, "Begins to build a Debian image and returns the operation.",
			func(_ context.Context, p api.ImageBuild) (api.OperationRef, error) {
				return begin("image.build", p.Name, func(ctx context.Context, op *opstate.Op) (banger.Image, error) {
					return s.Images.BuildDebian(ctx, p, op)
				})
			}),
		Call(Write, api.MethodImageRecipeBegin, "Begins to build an image by a recipe and returns the operation.",
			func(_ context.Context, p api.ImageRecipe) (api.OperationRef, error) {
				return begin("image.build", p.Name, func(ctx context.Context, op *opstate.Op) (banger.Image, error) {
					return s.Images.BuildRecipe(ctx, p, op)
				})
			}),
		Call(Write, api.MethodImagePullBegin, "Begins to make an image of an OCI image and returns the operation.",
			func(_ context.Context, p api.ImagePull) (api.OperationRef, error) {
				return begin("image.pull", p.Ref, func(ctx context.Context, op *opstate.Op) (banger.Image, error) { return s.Images.Pull(ctx, p, op) })
			}),
	}
}

func kernelMethods(s Services) []Method {
	out := func(ctx context.Context, k banger.Kernel) (api.Kernel, error) {
		users, err := s.Kernels.Users(ctx, k.Name)
		return kernelOut(k, users), err
	}
	return []Method{
		Call(Read, api.MethodKernelList, "Lists kernels.",
			func(ctx context.Context, _ api.Empty) (api.KernelList, error) {
				kernels, err := s.Kernels.List(ctx)
				if err != nil {
					return api.KernelList{}, err
				}
				items, err := convert(ctx, kernels, out)
				return api.KernelList{Kernels: items}, err
			}),
		Call(Read, api.MethodKernelGet, "Shows one kernel.",
			func(ctx context.Context, p api.Ref) (api.Kernel, error) {
				k, err := s.Kernels.Get(ctx, p.Ref)
				if err != nil {
					return api.Kernel{}, err
				}
				return out(ctx, k)
			}),
		Call(Write, api.MethodKernelDelete, "Deletes a kernel that no image or VM uses.",
			func(ctx context.Context, p api.Ref) (api.Empty, error) {
				return api.Empty{}, s.Kernels.Delete(ctx, p.Ref)
			}),
		Call(Write, api.MethodKernelImportBegin, "Begins to import a kernel and returns the operation.",
			func(_ context.Context, p api.KernelImport) (api.OperationRef, error) {
				op := s.Ops.Begin("kernel.import", p.Name, func(ctx context.Context, op *opstate.Op) (any, error) {
					k, err := s.Kernels.Import(ctx, p, op)
					return api.Ref{Ref: string(k.ID)}, err
				})
				return api.OperationRef{ID: op.ID}, nil
			}),
	}
}

func convert[In, Out any](ctx context.Context, in []In, fn func(context.Context, In) (Out, error)) ([]Out, error) {
	out := make([]Out, 0, len(in))
	for _, v := range in {
		o, err := fn(ctx, v)
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}
