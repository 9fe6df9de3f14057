package app

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/client"
)

// Completion is a cobra completion function.
type Completion = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective)

// complete asks a running daemon for names; without one there are none. Pressing Tab never starts a daemon, and never waits long.
func (a *App) complete(most int, names func(context.Context, *client.Client) ([]string, error)) Completion {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if most >= 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
		defer cancel()
		c, err := a.RunningClient(ctx, false)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all, err := names(ctx, c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return slices.DeleteFunc(all, func(n string) bool {
			return !strings.HasPrefix(n, word) || slices.Contains(args, strings.SplitN(n, "\t", 2)[0])
		}), cobra.ShellCompDirectiveNoFileComp
	}
}

// CompleteVMs completes up to most VM names; most -1 is no limit.
func (a *App) CompleteVMs(most int) Completion {
	return a.complete(most, func(ctx context.Context, c *client.Client) ([]string, error) {
		vms, err := c.VMList(ctx)
		names := make([]string, len(vms))
		for i, v := range vms {
			names[i] = v.Name + "\t" + v.State
		}
		return names, err
	})
}

// CompleteSessions completes the names of one VM's sessions.
func (a *App) CompleteSessions(vm string) Completion {
	return a.complete(-1, func(ctx context.Context, c *client.Client) ([]string, error) {
		sessions, err := c.SessionList(ctx, vm)
		names := make([]string, len(sessions))
		for i, v := range sessions {
			names[i] = v.Name + "\t" + string(v.State)
		}
		return names, err
	})
}

// CompleteImages completes up to most image names.
func (a *App) CompleteImages(most int) Completion {
	return a.complete(most, func(ctx context.Context, c *client.Client) ([]string, error) {
		images, err := c.ImageList(ctx)
		names := make([]string, len(images))
		for i, v := range images {
			names[i] = v.Name + "\t" + v.Source
		}
		return names, err
	})
}

// CompleteKernels completes up to most kernel names.
func (a *App) CompleteKernels(most int) Completion {
	return a.complete(most, func(ctx context.Context, c *client.Client) ([]string, error) {
		kernels, err := c.KernelList(ctx)
		names := make([]string, len(kernels))
		for i, v := range kernels {
			names[i] = v.Name + "\t" + v.Release
		}
		return names, err
	})
}

// CompleteOperations completes up to most operation ids.
func (a *App) CompleteOperations(most int) Completion {
	return a.complete(most, func(ctx context.Context, c *client.Client) ([]string, error) {
		ops, err := c.OperationList(ctx)
		names := make([]string, len(ops))
		for i, v := range ops {
			names[i] = strings.TrimSpace(v.ID + "\t" + v.Kind + " " + v.Subject)
		}
		return names, err
	})
}

// FlagCompletion is a completion of a flag's one value.
func FlagCompletion(c Completion) Completion {
	return func(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return c(cmd, nil, word)
	}
}
