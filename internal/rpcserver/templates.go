package rpcserver

import (
	"context"

	"github.com/banger-vm/banger/api"
)

func templateMethods(s Services) []Method {
	return []Method{
		Call(Read, api.MethodTemplateList, "Lists the templates from which VMs start warm.",
			func(context.Context, api.Empty) (api.TemplateList, error) {
				all, err := s.Templates.List()
				return api.TemplateList{Templates: all}, err
			}),
		Call(Write, api.MethodTemplateBuild, "Begins to make a template, unless there is one, and returns the operation.",
			func(_ context.Context, p api.TemplateBuild) (api.OperationRef, error) {
				op, err := s.VMs.BeginTemplate(p)
				return api.OperationRef{ID: op.ID}, err
			}),
		Call(Write, api.MethodTemplateDelete, "Deletes a template; VMs that began with it go on.",
			func(_ context.Context, p api.Ref) (api.Empty, error) {
				return api.Empty{}, s.Templates.Remove(p.Ref)
			}),
		Call(Write, api.MethodTemplatePrune, "Deletes templates that are of no use any more, or beyond the budget, or all.",
			func(ctx context.Context, p api.TemplatePrune) (api.TemplateList, error) {
				prune := s.Templates.PruneUseless
				if p.All {
					prune = func(context.Context) ([]api.Template, error) { return s.Templates.PruneAll() }
				}
				gone, err := prune(ctx)
				return api.TemplateList{Templates: gone}, err
			}),
	}
}
