// Package cli is banger's command line: it puts the commands of its sub-packages under one root, runs one, and turns its error
// into an exit code. It talks to the daemon and imports none of its services.
package cli

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/cli/daemoncmd"
	"github.com/banger-vm/banger/internal/cli/imagecmd"
	"github.com/banger-vm/banger/internal/cli/kernelcmd"
	"github.com/banger-vm/banger/internal/cli/opcmd"
	"github.com/banger-vm/banger/internal/cli/runcmd"
	"github.com/banger-vm/banger/internal/cli/sessioncmd"
	"github.com/banger-vm/banger/internal/cli/systemcmd"
	"github.com/banger-vm/banger/internal/cli/templatecmd"
	"github.com/banger-vm/banger/internal/cli/vmcmd"
	"github.com/banger-vm/banger/internal/cli/workcmd"
)

// Main runs the command line of this process and returns its exit code.
func Main(version string) int {
	a := app.New(version)
	a.Signals.Notify()
	return Run(context.Background(), a, os.Args[1:])
}

// Run runs one command line and returns its exit code.
func Run(ctx context.Context, a *app.App, args []string) int {
	ctx, stop := a.Signals.Context(ctx)
	defer stop()
	root := New(a)
	root.SetArgs(args)
	return a.Report(root.ExecuteContext(ctx))
}

// The groups in which help lists commands.
const (
	groupDaily = "daily"
	groupNouns = "nouns"
)

// New returns the root command with everything below it.
func New(a *app.App) *cobra.Command {
	root := &cobra.Command{
		Use: "banger", Short: "Disposable Linux microVMs in one command",
		Long: `banger gives you a disposable Linux machine in one command. "banger vm run" in a git repository creates a microVM, carries the
repository in and puts you at its prompt; the changes come back as a patch.`,
		Example: `  banger run                            a VM with the repository you stand in, and a shell in it
  banger run --rm -- make test          run the tests in a fresh VM and throw it away
  banger ps                             what there is
  banger doctor                         what this host offers, and what is missing`,
		SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.PersistentFlags().BoolVar(&a.NoStart, "no-start", false, "do not start the daemon when it does not run (as BANGER_NO_START=1)")
	root.AddGroup(&cobra.Group{ID: groupDaily, Title: "Every day:"}, &cobra.Group{ID: groupNouns, Title: "By noun:"})
	vm := vmcmd.New(a)
	vm.AddCommand(runcmd.New(a), workcmd.New(a), sessioncmd.New(a))
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupDaily, runcmd.New(a), named(vmcmd.NewList(a), "ps"), vmcmd.NewExec(a), vmcmd.NewSSH(a), vmcmd.NewCp(a), vmcmd.NewDelete(a))
	add(groupNouns, vm, imagecmd.New(a), kernelcmd.New(a), templatecmd.New(a), opcmd.New(a), daemoncmd.New(a), newConfig(a),
		systemcmd.New(a, func() ([]systemcmd.File, error) { return shared(root, a.Version, systemcmd.Share) }))
	root.AddCommand(newWeb(a), newEvents(a), newDoctor(a), newSSHConfig(a), newVersion(a), newCompletion(a), newDocs(a), newExitCodes())
	checkUsage(root)
	return root
}

// named gives a short form another name.
func named(cmd *cobra.Command, name string) *cobra.Command {
	cmd.Use, cmd.Aliases = name, []string{"ls"}
	return cmd
}

// checkUsage makes wrong flags and arguments errors of kind invalid everywhere, with a hint. A command that only has verbs
// prints its help when it is called without one.
func checkUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return app.Usage(c.CommandPath(), "%w", err) })
	if cmd.HasSubCommands() {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			err := app.Usage(c.CommandPath(), "unknown command %q for %q", args[0], c.CommandPath())
			if like := c.SuggestionsFor(args[0]); len(like) > 0 {
				err = app.Usage(c.CommandPath(), "unknown command %q for %q; did you mean %q?", args[0], c.CommandPath(), like[0])
			}
			return err
		}
		if cmd.RunE == nil {
			cmd.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
		}
		cmd.SuggestionsMinimumDistance = 2
	} else if cmd.RunE != nil {
		cmd.PreRunE = func(c *cobra.Command, _ []string) error {
			if err := c.ValidateFlagGroups(); err != nil {
				return app.Usage(c.CommandPath(), "%w", err)
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		checkUsage(sub)
	}
}
