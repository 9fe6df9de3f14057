// Package systemcmd is `banger system`: the daemon as a service of the system, installed, looked at and removed.
//
// # What is whose
//
// An installation remembers every file that it wrote with its digest, in a manifest beside the system's state, and every
// directory that it made. A file that has another digest is the user's: it is neither replaced, without --force, nor removed.
// State, cache and configuration belong to the daemon and the user; only --purge removes them.
//
// # The service
//
// The unit stops and restarts the daemon's main process alone, so that VMs run on. docs/adr/0007 says who talks to the system's
// daemon.
package systemcmd

import (
	"github.com/spf13/cobra"

	"github.com/banger-vm/banger/internal/cli/app"
)

// New returns `banger system` with its verbs. shared makes the man pages and completions.
func New(a *app.App, shared func() ([]File, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use: "system", Short: "Install, look at and remove the system's daemon", Args: cobra.NoArgs,
		Long: `The system's daemon runs as root under systemd, for everybody in the group banger: its VMs have more at their disposal than those of a
user's own daemon, and are there for all members. Who is root or a member talks to it by default; with BANGER_SYSTEM=0 he has a daemon of
his own. Membership is worth root's password: whoever builds images runs programs as root.`,
	}
	cmd.AddCommand(newInstall(a, shared), newStatus(a), newUninstall(a))
	return cmd
}

func rootFlag(cmd *cobra.Command, t *target) {
	cmd.Flags().StringVar(&t.root, "root", "", "work on the file system in this directory, such as an image's, and start nothing")
}
