package cli

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/cli/vmcmd"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/errkind"
)

// version is what `banger version` prints.
type version struct {
	Version  string `json:"version"`
	Protocol int    `json:"protocol"`
	Go       string `json:"go"`
	Arch     string `json:"arch"`
}

func newVersion(a *app.App) *cobra.Command {
	var out app.Output
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: app.Args(0, 0, ""),
		Long:              `Print the version of this program and of the protocol it speaks with the daemon, whose version is in "banger daemon status".`,
		Example:           `  banger version`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			v := version{a.Version, api.ProtocolVersion, runtime.Version(), runtime.GOARCH}
			return app.PrintOne(a, out, v, v.Version, []app.Field{
				{Name: "Version", Value: v.Version}, {Name: "Protocol", Value: fmt.Sprint(v.Protocol)},
				{Name: "Built with", Value: v.Go + " for " + v.Arch},
			})
		},
	}
	out.Flags(cmd)
	return cmd
}

func newConfig(a *app.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Show the configuration", Args: cobra.NoArgs,
		Long: `The configuration is layered: defaults, then the file, then the environment (BANGER_VMM, BANGER_VM_DEFAULTS_MEMORY, …). The daemon
reads it when it starts. A key that does not exist is an error.`,
	}
	cmd.AddCommand(newConfigShow(a), newConfigPath(a))
	return cmd
}

type configOptions struct {
	app *app.App
	out app.Output
}

func newConfigShow(a *app.App) *cobra.Command {
	o := &configOptions{app: a}
	cmd := &cobra.Command{
		Use: "show", Short: "Show each value and where it comes from", Args: app.Args(0, 0, ""),
		Long: `Show each key, its value and its origin: those the daemon runs with, or when it does not run those it would start with. The daemon is
not started by this command.`,
		Example: `  banger config show
  banger config show --format '{{.Key}}={{.Value}}'`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runConfigShow(cmd.Context(), o) },
	}
	o.out.Flags(cmd)
	return cmd
}

func runConfigShow(ctx context.Context, o *configOptions) error {
	var values []api.ConfigValue
	c, err := o.app.RunningClient(ctx, false)
	switch {
	case err == nil:
		l, err := c.Config(ctx)
		if err != nil {
			return err
		}
		values = l.Values
	case errors.Is(err, client.ErrNotRunning):
		paths, err := o.app.Paths()
		if err != nil {
			return err
		}
		cfg, err := config.Load(paths.ConfigFile(), o.app.LookupEnv, nil)
		if err != nil {
			return err
		}
		values = cfg.Values()
	default:
		return err
	}
	return app.PrintList(o.app, o.out, values, app.Table[api.ConfigValue]{
		Name: func(v api.ConfigValue) string { return v.Key },
		Columns: []app.Column[api.ConfigValue]{
			{Head: "KEY", Cell: func(v api.ConfigValue) string { return v.Key }},
			{Head: "VALUE", Cell: func(v api.ConfigValue) string { return v.Value }},
			{Head: "ORIGIN", Cell: func(v api.ConfigValue) string { return v.Origin }},
		},
	})
}

func newConfigPath(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "path", Short: "Print the path of the configuration file", Args: app.Args(0, 0, ""),
		Long:              "Print the path of the configuration file, which need not exist.",
		Example:           `  editor "$(banger config path)"`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			paths, err := a.Paths()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.Out, paths.ConfigFile())
			return err
		},
	}
}

func newSSHConfig(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "ssh-config", Short: "Print a configuration with which ssh, scp, rsync and editors reach VMs", Args: app.Args(0, 0, ""),
		Long: `Print a block for ssh's configuration by which every running VM is reached as NAME.vm: over the control channel, with banger's key, and
with the host keys that banger made, so that nothing is trusted on first use. Nothing is written: include the output yourself. It
needs OpenSSH 8.5 or newer.`,
		Example: `  banger ssh-config > ~/.ssh/banger.conf     # and "Include banger.conf" at the top of ~/.ssh/config
  ssh web.vm uptime
  rsync -a src/ web.vm:/srv/`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return runSSHConfig(a) },
	}
}

func runSSHConfig(a *app.App) error {
	paths, err := a.Paths()
	if err != nil {
		return err
	}
	// An identity may not hold a bare %, which begins one of ssh's tokens.
	identity := strings.ReplaceAll(paths.SSHKey(), "%", "%%")
	_, err = fmt.Fprintf(a.Out, `Host *.vm
    User root
    IdentityFile "%s"
    IdentitiesOnly yes
    StrictHostKeyChecking yes
    UpdateHostKeys no
    UserKnownHostsFile /dev/null
    GlobalKnownHostsFile /dev/null
    KnownHostsCommand %s
    ProxyCommand %s
`, identity, vmcmd.KnownHostsCommand(a), vmcmd.ProxyCommand(a, "%n"))
	return err
}

func newCompletion(a *app.App) *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use: "completion SHELL", Short: "Print a completion script for your shell", ValidArgs: shells,
		Long: `Print a script that completes commands, flags, and the names of VMs, images and kernels in bash, zsh, fish or powershell.`,
		Example: `  banger completion bash > /etc/bash_completion.d/banger
  banger completion zsh > "${fpath[1]}/_banger"
  banger completion fish > ~/.config/fish/completions/banger.fish`,
		Args: app.Args(1, 1, "one shell: bash, zsh, fish or powershell"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch root := cmd.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.Out, true)
			case "zsh":
				return root.GenZshCompletion(a.Out)
			case "fish":
				return root.GenFishCompletion(a.Out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.Out)
			}
			return errkind.WithHint(errkind.New(api.KindInvalid, "unknown shell %q", args[0]), "banger knows bash, zsh, fish and powershell")
		},
	}
}

// newExitCodes returns the help topic `banger help exit-codes`: a command without a Run.
func newExitCodes() *cobra.Command {
	return &cobra.Command{
		Use: "exit-codes", Short: "What banger's exit statuses mean",
		Long: `banger ends with one of these statuses:

    0   success
    1   a check of doctor failed
   64   the command line or a value in it is wrong
   66   what it names does not exist
   69   the daemon, a program or a device is missing or gone
   70   a defect of banger's, or a fault of the host without a better status
   73   the name is taken
   74   stored data is damaged, or going on would lose some
   75   busy: something else holds it now
   76   the guest failed
   77   not permitted
   78   the state does not allow it
  124   a time limit has passed
  130   interrupted or cancelled; 128 + n for another signal n
  141   nobody reads the output any more

"vm exec" and "vm run" end with the guest command's own status: 0 to 255, 128 + n when signal n ended it, 127 when it was not found,
126 when it could not be executed. A failure of banger's own is told on standard error, as a line "banger: …", with a line
"hint: …" that says what to do.

Of several references in one command, each failure is printed, and the first one decides.`,
	}
}
