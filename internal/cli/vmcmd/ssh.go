package vmcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/api/guestapi"
	"github.com/banger-vm/banger/client"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

type sshOptions struct {
	app  *app.App
	ref  string
	args []string
	user string
}

// NewSSH returns `banger vm ssh`.
func NewSSH(a *app.App) *cobra.Command {
	o := &sshOptions{app: a}
	cmd := &cobra.Command{
		Use: "ssh [flags] VM [--] [SSH-ARG...]", Short: "Open an SSH session to a VM", Args: app.Args(1, -1, "a VM"),
		Long: `Run the system's ssh to a running VM, with banger's key, over the control channel: it needs no network and no SSH server in the
image. The VM's host key is pinned; there is no trust on first use. What follows the VM goes to ssh: options, or a command.
"banger ssh-config" prints a configuration for scp, rsync and editors. "banger vm exec" is faster and needs no ssh.`,
		Example: `  banger vm ssh web
  banger vm ssh web -- uptime
  banger vm ssh web -- -L 8080:localhost:80 -N`,
		ValidArgsFunction: a.CompleteVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.ref, o.args = args[0], args[1:]
			return runSSH(cmd.Context(), o)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the VM is ssh's
	cmd.Flags().StringVarP(&o.user, "user", "u", "", "user to log in as (default: root)")
	return cmd
}

func runSSH(ctx context.Context, o *sshOptions) error {
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	s, err := c.VMSSH(ctx, o.ref)
	if err != nil {
		return err
	}
	program, err := host.LookPath("ssh")
	if err != nil {
		return errkind.WithHint(err, "install openssh-client, or use `banger vm exec %s`, which needs no ssh", s.Name)
	}
	if f, err := os.Open(s.Identity); err == nil {
		f.Close()
	} else if errors.Is(err, fs.ErrPermission) { // ssh would only warn of it, and then be refused by the guest
		return errkind.WithHint(err, "only who runs the daemon may read its key; use `banger vm exec -it %s -- sh`, or sudo", s.Name)
	}
	if o.user == "" {
		o.user = s.User
	}
	if len(o.args) > 0 && o.args[0] == "--" {
		o.args = o.args[1:]
	}
	argv := []string{program, "-l", o.user, "-i", s.Identity}
	for _, option := range []string{
		"IdentitiesOnly=yes", "UserKnownHostsFile=" + sshQuote(s.KnownHosts), "GlobalKnownHostsFile=/dev/null",
		"HostKeyAlias=" + s.HostAlias, "StrictHostKeyChecking=yes", "UpdateHostKeys=no",
		"ProxyCommand=" + ProxyCommand(o.app, s.Name),
	} {
		argv = append(argv, "-o", option)
	}
	argv = append(append(argv, s.Name+".vm"), o.args...)
	return o.app.Replace(argv, os.Environ())
}

// ProxyCommand returns the command line by which ssh reaches the VM with this name, or ssh's token for one. ssh gives it to a
// shell after it has replaced its %-tokens.
func ProxyCommand(a *app.App, name string) string {
	escape := func(s string) string { return strings.ReplaceAll(app.ShellQuote(s), "%", "%%") }
	line := escape(a.Self()) + " vm dial --ssh " + name
	return withChoice(a, "env", line, escape)
}

// withChoice has env set, for line, the variables of a's environment that say which daemon is meant: whoever runs line later may
// have others.
func withChoice(a *app.App, env, line string, quote func(string) string) string {
	words := ""
	for _, name := range []string{"BANGER_ROOT", "BANGER_SYSTEM"} {
		if v := a.Env(name); v != "" {
			words += quote(name+"="+v) + " "
		}
	}
	if words == "" {
		return line
	}
	return env + " " + words + line
}

// sshQuote quotes a path in an ssh option, where white space separates several (ssh_config(5)).
func sshQuote(path string) string {
	return `"` + strings.ReplaceAll(strings.ReplaceAll(path, `\`, `\\`), `"`, `\"`) + `"`
}

type dialOptions struct {
	app     *app.App
	ref     string
	address string
	ssh     bool
}

// NewDial returns the hidden `banger vm dial`, which joins standard input and output to a connection in a VM.
func NewDial(a *app.App) *cobra.Command {
	o := &dialOptions{app: a}
	cmd := &cobra.Command{
		Use: "dial VM [ADDRESS]", Short: "Connect standard input and output to a VM", Hidden: true, Args: app.Args(1, 2, "a VM and an address"),
		Long: `Connect standard input and output to a TCP address or the path of a Unix socket in a running VM, or with --ssh to the agent's SSH
server. It is what ssh runs as its ProxyCommand; a VM may be written as NAME.vm.`,
		Example: `  banger vm dial web localhost:5432
  ssh -o ProxyCommand='banger vm dial --ssh %h' root@web.vm`,
		ValidArgsFunction: a.CompleteVMs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.ref = args[0]
			if len(args) > 1 {
				o.address = args[1]
			}
			return runDial(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.ssh, "ssh", false, "connect to the agent's SSH server")
	return cmd
}

func runDial(ctx context.Context, o *dialOptions) error {
	if o.ssh == (o.address != "") {
		return app.Usage("banger vm dial", "give either an address or --ssh")
	}
	c, err := o.app.Client(ctx)
	if err != nil {
		return err
	}
	p := api.VMDial{Ref: api.Ref{Ref: strings.TrimSuffix(o.ref, ".vm")}, SSH: o.ssh}
	switch {
	case strings.HasPrefix(o.address, "/"):
		p.Dial = guestapi.Dial{Network: "unix", Address: o.address}
	case o.address != "":
		p.Dial = guestapi.Dial{Network: "tcp", Address: o.address}
	}
	conn, err := c.VMDial(ctx, p)
	if err != nil {
		return err
	}
	defer conn.Close()
	err = pipe(o.app, conn)
	var sig app.SignalError
	if errors.As(err, &sig) { // it is how ssh ends its ProxyCommand, and no news
		return app.ExitError{Code: app.ExitCode(err)}
	}
	return err
}

// pipe copies both ways until the guest has said everything. The end of the input is passed on and is not the end.
func pipe(a *app.App, conn client.Conn) error {
	go func() {
		if _, err := io.Copy(conn, a.In); err == nil {
			conn.CloseWrite() // a failure shows in the other direction
		}
	}()
	_, err := io.Copy(a.Out, conn)
	return err
}

// NewKnownHosts returns the hidden `banger vm known-hosts`, ssh's KnownHostsCommand.
func NewKnownHosts(a *app.App) *cobra.Command {
	return &cobra.Command{
		Use: "known-hosts HOST", Short: "Print a VM's host key under the name that ssh uses", Hidden: true, Args: app.Args(1, 1, "one host"),
		Long:              `Print the pinned host key of the VM called NAME.vm, for ssh's KnownHostsCommand. See "banger ssh-config".`,
		Example:           `  banger vm known-hosts web.vm`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return runKnownHosts(cmd.Context(), a, args[0]) },
	}
}

func runKnownHosts(ctx context.Context, a *app.App, name string) error {
	c, err := a.Client(ctx)
	if err != nil {
		return err
	}
	s, err := c.VMSSH(ctx, strings.TrimSuffix(name, ".vm"))
	if err != nil {
		return err
	}
	b, err := os.ReadFile(s.KnownHosts)
	if errors.Is(err, os.ErrNotExist) {
		return errkind.WithHint(errkind.New(api.KindPrecondition, "VM %q has no host key yet", s.Name), "start it: `banger vm start %s`", s.Name)
	}
	if err != nil {
		return err
	}
	for line := range bytes.Lines(b) {
		if key, ok := bytes.CutPrefix(line, []byte(s.HostAlias+" ")); ok {
			fmt.Fprintf(a.Out, "%s %s", name, key)
		}
	}
	return nil
}

// KnownHostsCommand returns the command line by which ssh asks for the host key of the VM it connects to. ssh runs it without a
// shell, and wants an absolute path.
func KnownHostsCommand(a *app.App) string {
	line := app.ShellQuote(a.Self()) + " vm known-hosts %H"
	return withChoice(a, "/usr/bin/env", line, app.ShellQuote)
}
