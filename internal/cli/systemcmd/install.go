package systemcmd

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/app"
	"github.com/banger-vm/banger/internal/config"
	"github.com/banger-vm/banger/internal/errkind"
	"github.com/banger-vm/banger/internal/host"
)

type installOptions struct {
	app    *app.App
	shared func() ([]File, error)
	target target
	dryRun bool
	force  bool
}

func newInstall(a *app.App, shared func() ([]File, error)) *cobra.Command {
	o := &installOptions{app: a, shared: shared}
	cmd := &cobra.Command{
		Use: "install", Short: "Install the system's daemon as a systemd service", Args: app.Args(0, 0, ""),
		Long: `Install this program and the two beside it below /usr/local, man pages, completions and the unit bangerd.service; make the group
banger; then enable and start the service. What was written is printed, and remembered with its digests, so that
"banger system uninstall" removes that and nothing else.

To upgrade, run it from the new programs: the service is restarted, and VMs run on. A file that is there and was not written by this
command, or was changed since, is refused unless --force is given.`,
		Example: `  sudo bin/banger system install
  banger system install --dry-run
  sudo usermod -aG banger ann         # let ann use it`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return runInstall(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would be done, and do nothing")
	f.BoolVar(&o.force, "force", false, "replace files that this command has not written, too")
	rootFlag(cmd, &o.target)
	return cmd
}

func runInstall(ctx context.Context, o *installOptions) error {
	if !o.dryRun && o.target.root == "" {
		if err := checkHost("install"); err != nil {
			return err
		}
	}
	files, err := o.files()
	if err != nil {
		return err
	}
	m, err := o.target.read()
	if err != nil {
		return err
	}
	changes, err := o.target.plan(m, files, o.force)
	if err != nil {
		return err
	}
	for _, c := range changes {
		fmt.Fprintf(o.app.Out, "%-8s %s\n", c.verb, o.target.path(c.file.Path))
	}
	if o.dryRun {
		o.sayActivation(len(changes) > 0)
		return nil
	}
	if err := o.target.apply(m, o.app.Version, changes); err != nil {
		return err
	}
	if o.target.root != "" {
		return nil
	}
	return o.activate(ctx, m, len(changes) > 0)
}

// files are all that is installed.
func (o *installOptions) files() ([]File, error) {
	var all []File
	for _, part := range []func() ([]File, error){
		func() ([]File, error) { return programs(o.app.Executable) }, units, o.shared,
	} {
		files, err := part()
		if err != nil {
			return nil, err
		}
		all = append(all, files...)
	}
	return all, nil
}

// steps are the programs that make the files effective. Each may be run again.
func steps(changed bool) [][]string {
	start := "start"
	if changed {
		start = "restart"
	}
	return [][]string{
		{"systemd-sysusers", sysusers}, {"systemd-tmpfiles", "--create", tmpfiles},
		{"systemctl", "daemon-reload"}, {"systemctl", "--quiet", "enable", unit}, {"systemctl", start, unit},
	}
}

func (o *installOptions) sayActivation(changed bool) {
	if o.target.root != "" {
		return
	}
	for _, argv := range steps(changed) {
		fmt.Fprintf(o.app.Out, "%-8s %s\n", "run", strings.Join(argv, " "))
	}
}

// activate makes the group, the directory of sockets and the service.
func (o *installOptions) activate(ctx context.Context, m *manifest, changed bool) error {
	if _, err := host.GroupID(config.Group); errkind.Is(err, api.KindNotFound) {
		m.Group = true
		if err := o.target.write(m); err != nil {
			return err
		}
	}
	for _, argv := range steps(changed) {
		if err := host.Run(ctx, host.Command{Argv: argv}); err != nil {
			return errkind.WithHint(fmt.Errorf("the files are installed, but %w", err), "see `journalctl -u %s`, then run the command again", unit)
		}
	}
	fmt.Fprintf(o.app.Err, "bangerd %s runs; members of the group %s may use it: `sudo usermod -aG %s USER`, then log in again\n",
		o.app.Version, config.Group, config.Group)
	return nil
}
