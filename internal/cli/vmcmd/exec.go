package vmcmd

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/cli/attach"
	"github.com/banger-vm/banger/internal/errkind"
)

type execOptions struct {
	app         *app.App
	ref         string
	argv        []string
	interactive bool
	tty         bool
	env         []string
	cwd, user   string
	timeout     time.Duration
}

// NewExec returns `banger vm exec`.
func NewExec(a *app.App) *cobra.Command {
	o := &execOptions{app: a}
	cmd := &cobra.Command{
		Use: "exec [flags] VM [--] [COMMAND [ARG...]]", Short: "Run a command in a VM", Args: app.Args(1, -1, "a VM"),
		Long: `Run a command in a running VM and end with its exit status. The words are passed on as they are, with no shell in between; for
pipes and variables of the guest run a shell, as below. Without a command it is the user's login shell, with a terminal if you
are at one. The command starts in the user's home directory, or in the workspace if the VM has one. It ends when this program ends.`,
		Example: `  banger vm exec web -- uname -a
  banger vm exec -it web
  banger vm exec web -- sh -c 'ps aux | wc -l'
  tar c . | banger vm exec -i web -- tar x -C /srv`,
		ValidArgsFunction: a.CompleteVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.ref, o.argv = args[0], args[1:]
			return runExec(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows the VM is the command's
	f.BoolVarP(&o.interactive, "interactive", "i", false, "pass standard input on")
	f.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal (needs one on standard input and output)")
	f.StringArrayVarP(&o.env, "env", "e", nil, "NAME=VALUE, or NAME for your own value (repeatable)")
	f.StringVarP(&o.cwd, "cwd", "C", "", "directory to start in")
	f.StringVarP(&o.user, "user", "u", "", "user[:group] to run as (default: root)")
	f.DurationVar(&o.timeout, "timeout", 0, "end the command after so long, with exit status 124 (0: never)")
	return cmd
}

func runExec(ctx context.Context, o *execOptions) error {
	if len(o.argv) > 0 && o.argv[0] == "--" {
		o.argv = o.argv[1:]
	}
	a := o.app
	atTerminal := a.InTTY && a.OutTTY
	if o.tty && !atTerminal {
		return errkind.WithHint(errkind.New(api.KindInvalid, "-t needs a terminal on standard input and output"), "leave -t out")
	}
	if o.timeout < 0 || o.timeout > 0 && o.timeout < time.Millisecond {
		return errkind.New(api.KindInvalid, "--timeout %s is too short", o.timeout)
	}
	env, err := a.Environment(o.env)
	if err != nil {
		return err
	}
	c, err := a.Client(ctx)
	if err != nil {
		return err
	}
	vm, err := c.VMGet(ctx, o.ref)
	if err != nil {
		return err
	}
	shell := len(o.argv) == 0
	if o.cwd == "" {
		o.cwd = workspacePath(vm)
	}
	p := api.VMExec{Ref: api.Ref{Ref: vm.ID},
		ExecSpec: guestapi.ExecSpec{Argv: o.argv, Env: env, Cwd: o.cwd, User: o.user, Login: shell, TimeoutMS: o.timeout.Milliseconds()}}
	st, err := attach.Run(ctx, a, c, p, attach.Options{Input: o.interactive || shell, Terminal: o.tty || shell && atTerminal})
	if err != nil {
		return err
	}
	return attach.Exit(a, st)
}
