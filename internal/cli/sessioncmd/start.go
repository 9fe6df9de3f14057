package sessioncmd

import (
	"context"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/cli/attach"
	"github.com/banger-vm/banger/internal/errkind"
)

type startOptions struct {
	app     *app.App
	p       api.SessionStart
	env     []string
	stdin   string
	restart string
	timeout time.Duration
	logSize app.SizeFlag
}

// newStart returns `banger vm session start`.
func newStart(a *app.App) *cobra.Command {
	o := &startOptions{app: a}
	cmd := &cobra.Command{
		Use: "start VM [flags] -- COMMAND [ARG...]", Short: "Start a command that outlives you", Args: app.Args(2, -1, "a VM and a command"),
		Long: `Start a session, and print its name. Its directory, user and the commands of --require are looked for first, and what is missing is
said. A command that cannot be executed ends this program with 127 or 126, and leaves no session. The command starts in the
user's home directory, or in the workspace if the VM has one.`,
		Example: `  banger vm session start web --name build -- make -j4
  banger vm session start web --name agent --stdin pty --require git,claude -- claude
  banger vm session start web --restart on-failure --tag server -- ./serve`,
		ValidArgsFunction: a.CompleteVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.p.Ref.Ref, o.p.Argv = args[0], args[1:]
			return o.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.p.Name, "name", "", "name, of which a VM has one each (default: an id)")
	f.StringVarP(&o.p.Cwd, "cwd", "C", "", "directory to start in")
	f.StringArrayVarP(&o.env, "env", "e", nil, "NAME=VALUE, or NAME for your own value (repeatable)")
	f.StringSliceVar(&o.p.Tags, "tag", nil, "words to find it by (repeatable)")
	f.StringVarP(&o.p.User, "user", "u", "", "user[:group] to run as (default: root)")
	f.StringVar(&o.stdin, "stdin", inputClosed, "its input: closed, pipe, or pty for a terminal")
	f.StringSliceVar(&o.p.Require, "require", nil, "commands that must be in the guest (repeatable)")
	f.StringVar(&o.restart, "restart", "no", "start it again: no, or on-failure")
	f.DurationVar(&o.timeout, "timeout", 0, "end the command after so long, with exit status 124 (0: never)")
	f.Var(&o.logSize, "log-size", "how much output to keep (default: 16M)")
	cmd.RegisterFlagCompletionFunc("stdin", cobra.FixedCompletions([]string{inputClosed, inputPipe, inputPTY}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("restart", cobra.FixedCompletions([]string{"no", "on-failure"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o *startOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	var err error
	if o.p.Env, err = o.app.Environment(o.env); err != nil {
		return err
	}
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	vm, err := c.VMGet(ctx, o.p.Ref.Ref)
	if err != nil {
		return err
	}
	o.p.Ref.Ref = vm.ID
	if o.p.Cwd == "" && vm.Workspace != nil {
		o.p.Cwd = vm.Workspace.GuestPath
	}
	s, err := c.SessionStart(ctx, o.p)
	if err != nil {
		return err
	}
	if s.Started.IsZero() && s.Exit != nil {
		return attach.Exit(o.app, *s.Exit)
	}
	fmt.Fprintln(o.app.Out, s.Name)
	return nil
}

func (o *startOptions) check() error {
	switch o.stdin {
	case inputClosed:
	case inputPipe:
		o.p.Stdin = true
	case inputPTY:
		o.p.TTY = true
	default:
		return errkind.New(api.KindInvalid, "--stdin is closed, pipe or pty, not %q", o.stdin)
	}
	switch o.restart {
	case "no":
	case "on-failure":
		o.p.RestartOnFailure = true
	default:
		return errkind.New(api.KindInvalid, "--restart is no or on-failure, not %q", o.restart)
	}
	if o.timeout < 0 || o.timeout > 0 && o.timeout < time.Millisecond {
		return errkind.New(api.KindInvalid, "--timeout %s is too short", o.timeout)
	}
	o.p.TimeoutMS, o.p.LogLimit = o.timeout.Milliseconds(), int64(o.logSize)
	for _, word := range slices.Concat(o.p.Argv, o.env, []string{o.p.Cwd}) {
		if !utf8.ValidString(word) {
			return errkind.WithHint(errkind.New(api.KindInvalid, "%q is not UTF-8", word), "run a shell in the guest that makes it: sh -c 'printf …'")
		}
	}
	return nil
}
