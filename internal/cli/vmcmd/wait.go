package vmcmd

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
)

type waitOptions struct {
	app     *app.App
	refs    []string
	states  []string
	timeout time.Duration
}

// deleted is what a wait may also be for: the VM is gone.
const deleted = "deleted"

// NewWait returns `banger vm wait`.
func NewWait(a *app.App) *cobra.Command {
	o := &waitOptions{app: a}
	cmd := &cobra.Command{
		Use: "wait VM...", Short: "Wait until VMs are in a state", Args: app.Args(1, -1, "a VM"),
		Long: `Wait until each VM is in the state that is asked for, or in one of several: created, starting, running, paused, stopping,
stopped, failed, or deleted. Without --for it is until a VM does not run any more. Nothing is polled: the daemon tells what
happens, also over its restart.`,
		Example: `  banger vm wait web && banger vm delete web
  banger vm wait --for running --timeout 1m web db`,
		ValidArgsFunction: a.CompleteVMs(-1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.refs = args
			return runWait(cmd.Context(), o)
		},
	}
	states := append(vmStates(), deleted)
	cmd.Flags().StringSliceVar(&o.states, "for", []string{"created", "stopped", "failed", deleted}, "`states` to wait for, by commas")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 0, "give up after so long (0: never)")
	cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions(states, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// vmStates are the states of api.VM.
func vmStates() []string {
	return []string{"created", "starting", "running", "paused", "stopping", "stopped", "failed"}
}

func runWait(ctx context.Context, o *waitOptions) error {
	for _, s := range o.states {
		if !slices.Contains(append(vmStates(), deleted), s) {
			return errkind.WithHint(errkind.New(api.KindInvalid, "there is no state %q", s), "see `banger vm wait --help`")
		}
	}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.timeout, errkind.New(api.KindTimeout, "not in time: waited for %s", o.timeout))
		defer cancel()
	}
	return each(ctx, o.app, o.refs, func(ctx context.Context, c *client.Client, t app.Target) error { return o.wait(ctx, c, t) })
}

// errSeen ends the stream of events.
var errSeen = errkind.New(api.KindCanceled, "seen")

// wait notes the place in the stream of events, looks at the VM, and follows the events from that place on, so that no change falls
// in between.
func (o *waitOptions) wait(ctx context.Context, c *client.Client, t app.Target) error {
	p := api.Events{Subject: t.ID, Types: []string{"vm"}}
	var err error
	if p.After, err = c.Events(ctx, p, func(api.Event) error { return nil }); err != nil {
		return err
	}
	if done, err := o.now(ctx, c, t.ID); done || err != nil {
		return err
	}
	p.Follow = true
	for {
		p.After, err = c.Events(ctx, p, o.see)
		if err == errSeen {
			return nil
		}
		if !errkind.Is(err, api.KindUnavailable) {
			return err
		}
		if c, err = o.app.AwaitDaemon(ctx); err != nil {
			return err
		}
	}
}

// now reports whether the VM is already as it is waited for.
func (o *waitOptions) now(ctx context.Context, c *client.Client, id string) (bool, error) {
	vm, err := c.VMGet(ctx, id)
	if errkind.Is(err, api.KindNotFound) {
		vm.State, err = deleted, nil
	}
	return slices.Contains(o.states, vm.State), err
}

func (o *waitOptions) see(e api.Event) error {
	state := e.State
	if e.Type == api.EventVMDeleted {
		state = deleted
	}
	if slices.Contains(o.states, state) {
		return errSeen
	}
	return nil
}
